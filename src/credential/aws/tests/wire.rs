use http::Uri;

use super::bench::Bench;
use crate::credential::aws::wire::Wire;
use crate::credential::testkit::Reply;

#[tokio::test]
async fn without_tls_only_the_machine_itself_is_spoken_to() {
    let bench = Bench::start(|_| Reply::Hang).await;
    let mut settings = bench.settings();
    let wire = Wire::new(&settings);
    settings.instance_metadata = true;
    let on_ec2 = Wire::new(&settings);
    for (uri, always, with_metadata) in [
        ("http://169.254.170.2/v2/credentials", true, true),
        ("http://169.254.170.23/v1/credentials", true, true),
        ("http://[fd00:ec2::23]/v1/credentials", true, true),
        ("http://127.0.0.1:8080/", true, true),
        ("http://[::1]:8080/", true, true),
        ("http://169.254.169.254/latest/api/token", false, true),
        ("http://[fd00:ec2::254]/latest/api/token", false, true),
        ("http://169.254.170.24/", false, false),
        (
            "http://secretsmanager.eu-west-1.amazonaws.com/",
            false,
            false,
        ),
        ("http://localhost/", false, false),
        ("http://10.0.0.1/", false, false),
        ("/relative", false, false),
    ] {
        let uri: Uri = uri.parse().unwrap();
        assert_eq!(wire.client(&uri).await.is_ok(), always, "{uri}");
        assert_eq!(on_ec2.client(&uri).await.is_ok(), with_metadata, "{uri}");
    }
}

#[tokio::test]
async fn where_no_authority_is_configured_those_of_the_system_are_trusted_and_no_other() {
    let bench = Bench::start(|_| Reply::json(200, "{}")).await;
    let mut settings = bench.settings();
    settings.ca_file = None;
    let request = http::Request::get(format!("{}/", settings.endpoint.clone().unwrap()));
    let sent = Wire::new(&settings)
        .send(request.body(Vec::new()).unwrap())
        .await;
    let failure = sent.unwrap_err();
    // A machine without any authorities says so before it dials.
    assert!(failure.hint.contains("authorities") || failure.hint.contains("or of the system"));
    assert!(bench.server.requests().is_empty());
}
