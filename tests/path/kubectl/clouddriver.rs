//! The command lines that Clouddriver makes, letter for letter.

use super::writes::WEB;
use super::{Scene, normal};
use crate::support::testbed::Testbed;

const JOB: &str = "
apiVersion: batch/v1
kind: Job
metadata: { name: j1, labels: { t: rs } }
spec:
  template:
    metadata: { annotations: { testbed.sortie.dev/run-for: 1ms, testbed.sortie.dev/log: hello } }
    spec: { restartPolicy: Never, containers: [{ name: c, image: example.com/job }] }
";

const CONFIG: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: { name: x }\n";

#[tokio::test]
async fn the_command_lines_of_clouddriver_do_what_they_do_directly() {
    let scene = Scene::on(Testbed::shared().await.cluster()).await;
    let image = "'{\"spec\":{\"template\":{\"spec\":{\"containers\":[{\"name\":\"c\",\"image\":\"example.com/web:2\"}]}}}}'";
    scene
        .writes_alike(&[
            ("apply -o json --dry-run=client -f -", CONFIG),
            ("apply -f -", WEB),
            ("apply -f -", JOB),
            ("create -f -", CONFIG),
            ("rollout status deployment/web", ""),
            (
                &format!("patch deployment web --record --type strategic --patch {image}"),
                "",
            ),
            ("rollout status deployment/web", ""),
            ("rollout history deployment/web", ""),
            ("rollout undo deployment/web --to-revision=1", ""),
            ("rollout status deployment/web", ""),
            ("rollout pause deployment/web", ""),
            ("rollout resume deployment/web", ""),
            ("scale deployment/web --replicas=2", ""),
            ("rollout status deployment/web", ""),
            ("rollout restart deployment/web", ""),
            ("rollout status deployment/web", ""),
            ("wait --for=condition=complete job/j1 --timeout=50s", ""),
            ("logs job/j1 -c=c", ""),
            (
                "delete configMap/x --ignore-not-found=true --cascade=background --grace-period=1",
                "",
            ),
            (
                "delete configMap/x --ignore-not-found=true --cascade=background --grace-period=1",
                "",
            ),
            ("delete pod -l 't = none' --ignore-not-found=true", ""),
        ])
        .await;
    scene.agrees().await;
    let reads = [
        "-o json get deployment,cronJob,daemonSet,job,replicaSet,statefulSet,pod,ingress,service,networkPolicy -n {ns}",
        "-o json get deployment,replicaSet -n {ns} -l 't = rs'",
        "-o json get job -n {ns} -l 't = rs'",
        "-o json get deployment web -n {ns}",
        "-o json get deployment none -n {ns}",
        "-o json get pod -n {ns} -l 't in (rs, other), !none'",
        "-o json get event -n {ns} --field-selector=involvedObject.name=web,involvedObject.kind=Deployment,type!=Normal",
        "get deployment -n {ns} -o jsonpath={.items[*].metadata.name}",
        "-o json get customResourceDefinition -A",
        "get namespace {ns} -o jsonpath={.metadata.name}",
        "logs job/j1 -c=c -n {ns}",
        "api-resources -o name",
    ];
    scene.reads_alike(&reads, normal::exact).await;
}
