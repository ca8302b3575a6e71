//! Throughput of the byte filter next to parsing, removing and printing again.
//!
//! `cargo bench --bench scrub` prints input megabytes per second on one core.
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::disallowed_types,
    reason = "a benchmark stops at the first surprise, prints its figures and measures real time"
)]

use std::fmt::Write as _;
use std::hash::RandomState;
use std::hint::black_box;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sortie::policy::load;
use sortie::resource::Gvr;
use sortie::scrub::Filter;

/// Time one slice takes at least.
const SLICE: Duration = Duration::from_millis(20);

/// Slices of each side. They take turns, so that a busy machine slows both.
const SLICES: usize = 51;

fn main() {
    let secret = Gvr::new("", "v1", "secrets");
    let pod = Gvr::new("", "v1", "pods");
    println!("input MB/s on one core: median of {SLICES} slices (best slice)");
    println!(
        "{:<22}{:>8}{:>16}{:>16}{:>8}",
        "object", "bytes", "sortie", "serde_json", "ratio"
    );
    measure("Secret, small", &secret, &small_secret());
    measure("Secret, Helm release", &secret, &helm_secret());
    measure("Pod", &pod, &pod_object());
}

fn measure(name: &str, gvr: &Gvr, object: &Value) {
    let text = object.to_string();
    let rules = load().expect("the shipped rules load").scrub;
    let filter = Filter::feed(rules, gvr.clone(), "Secret", RandomState::new());
    let mut sortie = || {
        let object = filter.object(black_box(text.as_bytes()));
        black_box(object.expect("the object is filtered"));
    };
    let mut serde = || {
        let parsed = serde_json::from_slice(black_box(text.as_bytes()));
        let mut object: Value = parsed.expect("it is JSON");
        remove(&mut object);
        black_box(serde_json::to_vec(&object).expect("it can be written"));
    };
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..SLICES {
        ours.push(throughput(text.len(), &mut sortie));
        theirs.push(throughput(text.len(), &mut serde));
    }
    let ((ours, our_best), (theirs, their_best)) = (summary(ours), summary(theirs));
    let pair = |median: f64, best: f64| format!("{median:.0} ({best:.0})");
    println!(
        "{name:<22}{:>8}{:>16}{:>16}{:>8.1}",
        text.len(),
        pair(ours, our_best),
        pair(theirs, their_best),
        ours / theirs
    );
}

/// Median and best.
fn summary(mut slices: Vec<f64>) -> (f64, f64) {
    slices.sort_by(f64::total_cmp);
    let median = slices.get(SLICES / 2).copied();
    (
        median.expect("there are slices"),
        slices.last().copied().expect("there are slices"),
    )
}

/// Input megabytes per second of one slice.
fn throughput(bytes: usize, once: &mut dyn FnMut()) -> f64 {
    let start = Instant::now();
    let mut rounds = 0_u32;
    while start.elapsed() < SLICE {
        for _ in 0..16 {
            once();
        }
        rounds += 16;
    }
    let bytes = u32::try_from(bytes).expect("objects are small");
    f64::from(bytes) * f64::from(rounds) / start.elapsed().as_secs_f64() / 1e6
}

/// What the comparison removes: less than the filter does.
fn remove(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
        metadata.remove("annotations");
    }
    if let Some(data) = object.get_mut("data").and_then(Value::as_object_mut) {
        for value in data.values_mut() {
            *value = Value::from("masked");
        }
    }
}

fn metadata(name: &str) -> Value {
    json!({
        "name": name, "namespace": "shop", "uid": "0b1c9a44-7c39-4c55-8f0e-6a2f7f1f6d2e",
        "resourceVersion": "48151623", "creationTimestamp": "2026-01-01T00:00:00Z",
        "labels": { "app": "shop", "app.kubernetes.io/managed-by": "spinnaker" },
    })
}

fn fields(count: usize) -> Value {
    let mut fields = serde_json::Map::new();
    for index in 0..count {
        fields.insert(
            format!("f:field-{index}"),
            json!({ ".": {}, "f:name": {}, "f:value": {} }),
        );
    }
    json!([{ "manager": "kube-controller-manager", "operation": "Update", "apiVersion": "v1",
        "time": "2026-01-01T00:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": fields }])
}

/// About 1.5 KB: three values and what the API server writes around them.
fn small_secret() -> Value {
    let mut metadata = metadata("db-credentials");
    if let Some(metadata) = metadata.as_object_mut() {
        metadata.insert("managedFields".into(), fields(6));
    }
    json!({ "apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "data": {
        "username": "c2hvcA==", "password": "cGFzc3dvcmQtMDEyMzQ1Njc4OQ==", "tls.key": "QUJD".repeat(150),
    }})
}

/// About 200 KB: one value.
fn helm_secret() -> Value {
    json!({ "apiVersion": "v1", "kind": "Secret", "metadata": metadata("sh.helm.release.v1.shop.v1"),
        "type": "helm.sh/release.v1", "data": { "release": "SDRzSUFBQUFBQUFD".repeat(12_500) } })
}

/// About 10 KB, a little less than half of it `managedFields`.
fn pod_object() -> Value {
    let mut metadata = metadata("web-5d4f8c7b9-x2x7k");
    if let Some(metadata) = metadata.as_object_mut() {
        metadata.insert("managedFields".into(), fields(85));
    }
    let mut script = String::new();
    let containers: Vec<Value> = (0..6)
        .map(|index| {
            writeln!(script, "echo \"step {index}\"").expect("a string takes everything");
            let env: Vec<Value> = (0..8)
                .map(|at| json!({ "name": format!("VARIABLE_{at}"), "value": format!("value-{at}") }))
                .collect();
            json!({ "name": format!("container-{index}"), "image": "registry.example.com/shop/web:1.2.3",
                "args": ["-c", script], "env": env, "resources": { "limits": { "cpu": "500m", "memory": "256Mi" } },
                "terminationMessagePath": "/dev/termination-log", "imagePullPolicy": "IfNotPresent" })
        })
        .collect();
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata,
        "spec": { "containers": containers, "nodeName": "node-1", "restartPolicy": "Always" },
        "status": { "phase": "Running", "podIP": "10.0.0.1", "startTime": "2026-01-01T00:00:00Z" } })
}
