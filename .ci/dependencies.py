#!/usr/bin/env python3
"""The dependency rules of deny.toml that `cargo tree` can check, for machines without cargo-deny.

- no banned crate is built, for any target, in any combination of features;
- there is exactly one rustls;
- every licence is on the allow-list.
"""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
SEPARATOR = "\t"


def list_of(key, text):
    """The entries of `key = [ … ]` in deny.toml (Python's own TOML reader is newer than 3.9)."""
    body = re.search(rf"^{key} = \[\n(.*?)^\]", text, re.S | re.M)
    if body is None:
        sys.exit(f"deny.toml has no list `{key}`")
    return re.findall(r'^ *(?:\{ crate = )?"([^"]+)"', body.group(1), re.M)


def built(*arguments):
    """(name, version, licence) of everything that `cargo tree` lists."""
    out = subprocess.run(
        ["cargo", "tree", "--locked", "--all-features", "--edges", "normal,build,dev",
         "--prefix", "none", "--format", SEPARATOR.join(("{p}", "{l}")), *arguments],
        cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    found = set()
    for line in out.splitlines():
        package, licence = re.sub(r" \(\*\)$", "", line).split(SEPARATOR)
        name, version = package.split(" ")[:2]
        found.add((name, version, licence))
    return found


def allowed(expression, licences):
    """Whether an SPDX expression can be met from `licences`; `/` is the old way to write OR."""
    words = re.findall(r"[()]|[^\s()/]+(?: WITH [^\s()/]+)?|/", expression)

    def alternatives():
        result = conjunction()
        while words and words[0] in ("OR", "/"):
            words.pop(0)
            result = conjunction() or result
        return result

    def conjunction():
        result = term()
        while words and words[0] == "AND":
            words.pop(0)
            result = term() and result
        return result

    def term():
        word = words.pop(0) if words else ""
        if word == "(":
            result = alternatives()
            return bool(words) and words.pop(0) == ")" and result
        return word in licences

    result = alternatives()
    return result and not words


def self_test():
    mit = {"MIT"}
    for expression, want in (("MIT", True), ("MIT/X", True), ("X OR MIT", True), ("X AND MIT", False),
                             ("(X OR MIT) AND MIT", True), ("X WITH e OR MIT", True), ("", False),
                             ("(MIT", False), ("MIT WITH e", False)):
        if allowed(expression, mit) is not want:
            sys.exit(f"the licence check is wrong about `{expression}`")


def main():
    self_test()
    rules = (ROOT / "deny.toml").read_text(encoding="utf-8")
    licences, banned = set(list_of("allow", rules)), set(list_of("deny", rules))
    problems = []

    everywhere = built("--target", "all")
    for name, version, _licence in sorted(everywhere):
        if name in banned:
            problems.append(f"{name} {version} is banned: cargo tree --target all -i {name}")
    stacks = sorted(version for name, version, _ in everywhere if name == "rustls")
    if len(stacks) != 1:
        problems.append(f"there must be exactly one rustls, found {stacks}")

    shipped = set().union(*(built("--target", target) for target in list_of("targets", rules)))
    for name, version, licence in sorted(shipped):
        if not allowed(licence, licences):
            problems.append(f"{name} {version}: licence `{licence}` is not allowed")

    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"{len(shipped)} packages for the shipped targets, {len(everywhere)} for any, "
          f"{len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
