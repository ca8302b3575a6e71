//! Reads the paths out of Rust source: every `a::b::c`, with `use` trees spread out.

/// A path that the source names.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Use {
    /// Its parts; a macro's last part ends in `!`, a glob's is `*`.
    pub(crate) path: Vec<String>,
    /// The line of its first part, from 1.
    pub(crate) line: usize,
    /// How many `mod NAME { … }` of the file it lies in.
    pub(crate) inline_modules: usize,
}

/// Every path in `source`, comments and literals left out.
pub(crate) fn uses(source: &str) -> Vec<Use> {
    let tokens = tokens(&code(source));
    let mut reader = Reader {
        tokens: &tokens,
        at: 0,
        found: Vec::new(),
        inline_modules: Vec::new(),
        depth: 0,
    };
    while reader.at < tokens.len() {
        reader.step();
    }
    reader.found
}

#[derive(Debug, Eq, PartialEq)]
enum Token {
    Name(String),
    /// `::`
    Separator,
    Other(char),
}

struct Reader<'a> {
    tokens: &'a [(Token, usize)],
    at: usize,
    found: Vec<Use>,
    /// The brace depths at which inline modules were opened.
    inline_modules: Vec<usize>,
    depth: usize,
}

impl Reader<'_> {
    fn peek(&self, ahead: usize) -> Option<&Token> {
        self.tokens.get(self.at + ahead).map(|(token, _line)| token)
    }

    fn step(&mut self) {
        match self.peek(0) {
            Some(Token::Name(name)) if name == "mod" && self.opens_module() => {
                self.depth += 1;
                self.inline_modules.push(self.depth);
                self.at += 3;
            }
            Some(Token::Name(_)) => self.path(&[]),
            Some(Token::Other('{')) => {
                self.depth += 1;
                self.at += 1;
            }
            Some(Token::Other('}')) => {
                if self.inline_modules.last() == Some(&self.depth) {
                    self.inline_modules.pop();
                }
                self.depth = self.depth.saturating_sub(1);
                self.at += 1;
            }
            _ => self.at += 1,
        }
    }

    fn opens_module(&self) -> bool {
        matches!(self.peek(1), Some(Token::Name(_))) && self.peek(2) == Some(&Token::Other('{'))
    }

    /// One path, or what follows `prefix` in a tree.
    fn path(&mut self, prefix: &[String]) {
        let line = self.tokens.get(self.at).map_or(0, |(_token, line)| *line);
        let mut path = prefix.to_vec();
        loop {
            match self.peek(0) {
                Some(Token::Name(name)) => path.push(name.clone()),
                Some(Token::Other('*')) => path.push("*".to_owned()),
                Some(Token::Other('{')) => return self.tree(&path),
                _ => break,
            }
            self.at += 1;
            if self.peek(0) != Some(&Token::Separator) {
                break;
            }
            self.at += 1;
        }
        if self.peek(0) == Some(&Token::Other('!'))
            && let Some(last) = path.last_mut()
        {
            last.push('!');
        }
        let inline_modules = self.inline_modules.len();
        self.found.push(Use {
            path,
            line,
            inline_modules,
        });
    }

    /// `{a, b::{c, d}, e as f}` behind `prefix`.
    fn tree(&mut self, prefix: &[String]) {
        self.at += 1;
        loop {
            match self.peek(0) {
                None => return,
                Some(Token::Other('}')) => {
                    self.at += 1;
                    return;
                }
                Some(Token::Name(name)) if name == "as" => self.at += 2,
                Some(Token::Name(_) | Token::Other('*')) => self.path(prefix),
                _ => self.at += 1,
            }
        }
    }
}

fn tokens(code: &str) -> Vec<(Token, usize)> {
    let mut tokens = Vec::new();
    let mut line = 1;
    let mut rest = code.chars().peekable();
    while let Some(c) = rest.next() {
        if c == '\n' {
            line += 1;
        } else if is_name(c) {
            let mut name = String::from(c);
            while let Some(more) = rest.next_if(|c| is_name(*c)) {
                name.push(more);
            }
            tokens.push((Token::Name(name), line));
        } else if c == ':' && rest.next_if_eq(&':').is_some() {
            tokens.push((Token::Separator, line));
        } else if !c.is_whitespace() {
            tokens.push((Token::Other(c), line));
        }
    }
    tokens
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// `source` with comments and the inside of literals left out; lines stay where they are.
fn code(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(c) = rest.chars().next() {
        let skipped = comment(rest)
            .or_else(|| raw_string(rest, &out))
            .or_else(|| quoted(rest));
        let taken = skipped.unwrap_or(c.len_utf8());
        let (text, behind) = rest.split_at(taken);
        if skipped.is_some() {
            out.push(' ');
            out.extend(text.chars().filter(|c| *c == '\n'));
        } else {
            out.push_str(text);
        }
        rest = behind;
    }
    out
}

/// The length of the comment at the start of `rest`.
fn comment(rest: &str) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if !rest.starts_with("/*") {
        return None;
    }
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(here) = rest.get(at..).filter(|here| !here.is_empty()) {
        if here.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if here.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return Some(at);
            }
        } else {
            at += here.chars().next().map_or(1, char::len_utf8);
        }
    }
    Some(rest.len())
}

/// The length of the raw string at the start of `rest`; `before` tells a name that ends in `r`.
fn raw_string(rest: &str, before: &str) -> Option<usize> {
    if before.chars().next_back().is_some_and(is_name) {
        return None;
    }
    let start = ["br", "cr", "r"]
        .iter()
        .find(|prefix| rest.starts_with(**prefix))?
        .len();
    let hashes = rest.get(start..)?.chars().take_while(|c| *c == '#').count();
    let body = rest.get(start + hashes..)?.strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    let end = body.find(&close).map_or(body.len(), |at| at + close.len());
    Some(start + hashes + 1 + end)
}

/// The length of the string or character at the start of `rest`; a lifetime is neither.
fn quoted(rest: &str) -> Option<usize> {
    let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let mut inside = rest.char_indices().skip(1);
    if quote == '\'' {
        let (_, first) = inside.clone().next()?;
        let (_, second) = inside.clone().nth(1)?;
        if first != '\\' && second != '\'' {
            return None;
        }
    }
    while let Some((at, c)) = inside.next() {
        if c == '\\' {
            inside.next();
        } else if c == quote {
            return Some(at + 1);
        }
    }
    Some(rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(source: &str) -> Vec<String> {
        uses(source)
            .iter()
            .map(|found| found.path.join("::"))
            .collect()
    }

    #[test]
    fn trees_are_spread_out() {
        assert_eq!(
            paths("use a::{b, c::{d, e as f}, *};"),
            ["use", "a::b", "a::c::d", "a::c::e", "a::*"]
        );
    }

    #[test]
    fn lines_survive_comments_and_literals() {
        let found = uses("/* one\n two */ \"three\n\" // four\n r#\"five\n\"# last");
        assert_eq!(found.len(), 1);
        assert_eq!(found.first().map(|found| found.line), Some(5));
    }

    #[test]
    fn quotes_and_lifetimes_are_told_apart() {
        assert_eq!(
            paths("'a' '\\'' '\"' \"\\\"x\" &'l y b'z' b\"w\""),
            ["l", "y", "b", "b"]
        );
    }
}
