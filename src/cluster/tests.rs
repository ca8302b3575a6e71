use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

use super::*;
use crate::credential::testkit::{Authority, Logged, Reply, Scripted};
use crate::credential::{Profile, Relaxation, Rules, kubeconfig};
use crate::secret::Buffer;

/// A cluster at this port whose certificate `authority` must have issued.
async fn cluster(port: u16, authority: &Authority, base_path: &str) -> (Cluster, Tasks) {
    let text = format!(
        "current-context: c\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
         clusters: [{{name: c, cluster: {{server: 'https://127.0.0.1:{port}{base_path}',\n  \
         certificate-authority-data: {}}}}}]\nusers: [{{name: u, user: {{token: planted-token}}}}]\n",
        STANDARD.encode(authority.pem())
    );
    let credential = kubeconfig::read(text.as_bytes(), None, &Profile::sealed()).unwrap();
    let tasks = Tasks::new();
    (
        Cluster::new(Arc::new(credential), tasks.clone())
            .await
            .unwrap(),
        tasks,
    )
}

async fn scripted(script: impl Fn(&str) -> Reply + Send + Sync + 'static) -> (Scripted, Cluster) {
    let authority = Authority::new();
    let server = Scripted::start(authority.tls(&[b"http/1.1"]), script).await;
    let (cluster, _) = cluster(server.address.port(), &authority, "").await;
    (server, cluster)
}

fn get(transport: Transport) -> ApiRequest<'static> {
    ApiRequest {
        transport,
        ..ApiRequest::get("/api/v1/secrets")
    }
}

async fn read_all(answer: &mut ApiAnswer) -> Result<Vec<u8>, ClusterError> {
    let mut buffer = Buffer::new(1024 * 1024);
    while answer.body.read(&mut buffer).await? > 0 {}
    Ok(buffer.filled().to_vec())
}

const BOTH: [Transport; 2] = [Transport::Pooled, Transport::Wiping];

#[tokio::test]
async fn both_transports_read_every_framing_of_http1() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\nhello world",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\na: b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhello world",
    ] {
        for transport in BOTH {
            let (server, cluster) =
                scripted(move |_| Reply::Bytes(answer.as_bytes().to_vec())).await;
            let mut answer = cluster.send(get(transport)).await.unwrap();
            assert_eq!(answer.status, 200);
            assert_eq!(read_all(&mut answer).await.unwrap(), b"hello world");
            let request = server.requests()[0].to_lowercase();
            assert!(
                request.starts_with("get /api/v1/secrets http/1.1\r\n"),
                "{request}"
            );
            assert!(request.contains("authorization: bearer planted-token\r\n"));
            assert!(request.contains("accept-encoding: identity\r\n"));
            assert!(request.contains(&format!("host: {}\r\n", server.address)));
        }
    }
}

#[tokio::test]
async fn a_body_and_a_base_path_are_sent() {
    for transport in BOTH {
        let authority = Authority::new();
        let server = Scripted::start(authority.tls(&[]), |_| Reply::json(201, "{}")).await;
        let (cluster, _) = cluster(server.address.port(), &authority, "/k8s/clusters/c-1").await;
        let request = ApiRequest {
            method: "POST".into(),
            body: RequestBody::Bytes(Zeroizing::new(b"planted-body".to_vec())),
            ..get(transport)
        };
        assert!(!format!("{request:?}").contains("planted"));
        let mut answer = cluster.send(request).await.unwrap();
        assert_eq!(answer.status, 201);
        assert_eq!(read_all(&mut answer).await.unwrap(), b"{}");
        let request = &server.requests()[0];
        assert!(request.starts_with("POST /k8s/clusters/c-1/api/v1/secrets HTTP/1.1\r\n"));
        assert!(request.to_lowercase().contains("content-length: 12\r\n"));
        assert!(request.ends_with("\r\n\r\nplanted-body"));
    }
}

#[tokio::test]
async fn interim_answers_are_skipped_and_empty_bodies_end_at_once() {
    let (_server, cluster) = scripted(|_| {
        Reply::Hold(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n".to_vec())
    })
    .await;
    let mut answer = cluster.send(get(Transport::Wiping)).await.unwrap();
    assert_eq!(
        (answer.status, read_all(&mut answer).await.unwrap().len()),
        (204, 0)
    );
}

#[tokio::test]
async fn heads_that_could_be_read_in_two_ways_are_refused() {
    let many = "a: b\r\n".repeat(101);
    let long = format!("a: {}\r\n", "x".repeat(70_000));
    for head in [
        "HTTP/1.1 banana\r\n\r\n",
        "planted garbage that is no head\r\n\r\n",
        "HTTP/1.1 101 Switching\r\nupgrade: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n",
        &format!("HTTP/1.1 200 OK\r\n{many}\r\n"),
        &format!("HTTP/1.1 200 OK\r\n{long}\r\n"),
        "HTTP/1.1 200 OK\r\ncontent-le",
        "",
    ] {
        let bytes = head.as_bytes().to_vec();
        let (_server, cluster) = scripted(move |_| Reply::Bytes(bytes.clone())).await;
        let error = cluster.send(get(Transport::Wiping)).await.unwrap_err();
        let shown = format!("{} {error:?}", crate::fault::Chain(&error));
        assert_eq!(error.reason(), Reason::ApiUnreachable, "{shown}");
        assert!(!shown.contains("planted"), "{shown}");
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_is_never_a_short_body() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nshort",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nshort",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nshort\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nshort\r\n0\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nplanted\r\n",
    ] {
        for transport in BOTH {
            let (_server, cluster) =
                scripted(move |_| Reply::Bytes(answer.as_bytes().to_vec())).await;
            let mut answer = cluster.send(get(transport)).await.unwrap();
            let error = read_all(&mut answer).await.unwrap_err();
            assert!(!format!("{} {error:?}", crate::fault::Chain(&error)).contains("planted"));
        }
    }
}

#[tokio::test]
async fn a_watch_hands_out_what_has_come_and_can_be_dropped() {
    for transport in BOTH {
        let (_server, cluster) = scripted(|_| {
            Reply::Hold(
                b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n6\r\nfirst\n\r\n".to_vec(),
            )
        })
        .await;
        let request = ApiRequest {
            long_running: true,
            ..get(transport)
        };
        let mut answer = cluster.send(request).await.unwrap();
        let mut buffer = Buffer::new(1024);
        assert_eq!(answer.body.read(&mut buffer).await.unwrap(), 6);
        // A read that is given up loses nothing and the next goes on.
        let waiting = timeout(Duration::from_millis(50), answer.body.read(&mut buffer)).await;
        assert!(waiting.is_err());
        assert_eq!(buffer.filled(), b"first\n");
    }
}

#[tokio::test]
async fn a_full_buffer_is_told_and_nothing_is_lost() {
    let (_server, cluster) = scripted(|_| Reply::json(200, &"x".repeat(50_000))).await;
    let mut answer = cluster.send(get(Transport::Wiping)).await.unwrap();
    let (mut buffer, mut total) = (Buffer::new(1000), 0);
    loop {
        match answer.body.read(&mut buffer).await {
            Ok(0) => break,
            Ok(read) => total += read,
            Err(ClusterError::TooLarge { .. }) => buffer.clear(),
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(total, 50_000);
}

#[tokio::test]
async fn only_the_credentials_authority_is_trusted() {
    for transport in BOTH {
        let server = Scripted::start(Authority::new().tls(&[]), |_| Reply::Hang).await;
        let (cluster, _) = cluster(server.address.port(), &Authority::new(), "").await;
        let error = cluster.send(get(transport)).await.unwrap_err();
        assert_eq!(error.reason(), Reason::ApiUntrusted, "{error:?}");
        assert!(server.requests().is_empty());
    }
}

#[tokio::test]
async fn a_closed_port_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let (cluster, _) = cluster(port, &Authority::new(), "").await;
    let error = cluster.send(get(Transport::Pooled)).await.unwrap_err();
    assert!(matches!(error, ClusterError::Unreachable { .. }));
}

#[tokio::test]
async fn requests_that_are_not_what_they_seem_are_not_sent() {
    let (server, cluster) = scripted(|_| Reply::json(200, "{}")).await;
    let with = |name: &'static str, value: &'static str| get(Transport::Wiping).header(name, value);
    let to = |target: &str| ApiRequest::get(target);
    for request in [
        with("Authorization", "x"),
        with("Impersonate-User", "admin"),
        with("transfer-encoding", "chunked"),
        with("x", "a\r\nb: c"),
        with("x y", "a"),
        to("api"),
        to("/api HTTP/1.1\r\nx: y"),
        to("/api#x"),
        to("/\u{e9}"),
        ApiRequest {
            method: "CONNECT".into(),
            ..get(Transport::Pooled)
        },
    ] {
        let error = cluster.send(request).await.unwrap_err();
        assert!(matches!(error, ClusterError::Request(_)), "{error}");
    }
    assert!(server.requests().is_empty());
}

/// An HTTP/2 server that counts its connections; `/hold` is never answered.
async fn http2_server(authority: &Authority, tasks: &Tasks) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = TlsAcceptor::from(authority.tls(&[b"h2"]));
    let count = Arc::new(AtomicUsize::new(0));
    let (counted, connections) = (Arc::clone(&count), tasks.clone());
    tasks.spawn("http2-server", move |_stop| async move {
        while let Ok((socket, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            let acceptor = acceptor.clone();
            connections.spawn("http2-connection", move |_stop| async move {
                let stream = acceptor.accept(socket).await.unwrap();
                let service =
                    service_fn(|request: http::Request<hyper::body::Incoming>| async move {
                        if request.uri().path() == "/hold" {
                            std::future::pending::<()>().await;
                        }
                        Ok::<_, Infallible>(http::Response::new(Full::new(Bytes::from_static(
                            b"{}",
                        ))))
                    });
                drop(
                    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                        .max_concurrent_streams(1000)
                        .serve_connection(TokioIo::new(stream), service)
                        .await,
                );
            });
        }
    });
    (port, count)
}

#[tokio::test]
async fn the_pool_opens_another_connection_before_the_servers_limit() {
    let (authority, servers) = (Authority::new(), Tasks::new());
    let (port, connections) = http2_server(&authority, &servers).await;
    let (cluster, tasks) = cluster(port, &authority, "").await;
    let cluster = Arc::new(cluster);
    for _ in 0..101 {
        let cluster = Arc::clone(&cluster);
        tasks.spawn("held", |stop| async move {
            let held = cluster.send(ApiRequest::get("/hold"));
            drop(stop.run_until_cancelled(held).await);
        });
    }
    tokio::task::yield_now().await;
    // Watches have connections of their own.
    let watch = ApiRequest {
        long_running: true,
        ..ApiRequest::get("/watch")
    };
    let mut answer = cluster.send(watch).await.unwrap();
    assert_eq!(read_all(&mut answer).await.unwrap(), b"{}");
    let mut answer = cluster.send(ApiRequest::get("/short")).await.unwrap();
    assert_eq!(read_all(&mut answer).await.unwrap(), b"{}");
    let opened = async {
        while connections.load(Ordering::Relaxed) < 3 {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(10), opened).await.unwrap();
    assert_eq!(connections.load(Ordering::Relaxed), 3);
    tasks.cancel();
    servers.cancel();
}

#[tokio::test]
async fn dropped_requests_give_their_place_back() {
    let (authority, servers) = (Authority::new(), Tasks::new());
    let (port, connections) = http2_server(&authority, &servers).await;
    let (cluster, _tasks) = cluster(port, &authority, "").await;
    cluster.send(ApiRequest::get("/short")).await.unwrap();
    for _ in 0..200 {
        let held = cluster.send(ApiRequest::get("/hold"));
        drop(timeout(Duration::from_millis(2), held).await);
    }
    let mut answer = cluster.send(ApiRequest::get("/short")).await.unwrap();
    assert_eq!(read_all(&mut answer).await.unwrap(), b"{}");
    assert_eq!(connections.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn silence_ends_at_the_deadline() {
    let (authority, servers) = (Authority::new(), Tasks::new());
    let (port, _) = http2_server(&authority, &servers).await;
    let (cluster, _tasks) = cluster(port, &authority, "").await;
    cluster.send(ApiRequest::get("/short")).await.unwrap();
    // From here on the clock runs as fast as everybody waits.
    tokio::time::pause();
    let error = cluster.send(ApiRequest::get("/hold")).await.unwrap_err();
    assert!(matches!(error, ClusterError::TimedOut { .. }), "{error:?}");
    tokio::time::resume();

    let (_server, cluster) =
        scripted(|_| Reply::Hold(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort".to_vec()))
            .await;
    let mut answer = cluster.send(get(Transport::Wiping)).await.unwrap();
    let mut buffer = Buffer::new(1024);
    assert_eq!(answer.body.read(&mut buffer).await.unwrap(), 5);
    tokio::time::pause();
    let error = answer.body.read(&mut buffer).await.unwrap_err();
    assert!(matches!(error, ClusterError::TimedOut { .. }), "{error:?}");
}

const AGGREGATED: &str = r#"{"kind":"APIGroupDiscoveryList","items":[{"metadata":{"name":"apps"},"versions":[
  {"version":"v1","freshness":"Current","resources":[{"resource":"deployments","responseKind":{"group":"","version":"","kind":"Deployment"},"scope":"Namespaced","singularResource":"deployment","verbs":["get","list"],"shortNames":["deploy"],"categories":["all"],"subresources":[{"subresource":"scale","responseKind":{"group":"autoscaling","version":"v1","kind":"Scale"},"verbs":["get"]}]}]},
  {"version":"v1beta1","freshness":"Stale","resources":null}]}]}"#;

#[tokio::test]
async fn discovery_reads_the_aggregated_form_in_two_requests() {
    let core = AGGREGATED
        .replace(r#"{"name":"apps"}"#, "{}")
        .replace("deployments", "pods");
    let (server, cluster) = scripted(move |request| {
        let body = if request.starts_with("GET /apis ") {
            AGGREGATED
        } else {
            &core
        };
        Reply::json(200, body)
    })
    .await;
    let found = cluster.discovery().await.unwrap();
    let names: Vec<String> = found
        .kinds
        .iter()
        .map(|kind| kind.gvr.to_string())
        .collect();
    assert_eq!(names, ["pods.v1", "deployments.v1.apps"]);
    assert_eq!(found.incomplete, ["v1beta1", "apps/v1beta1"]);
    let deployment = &found.kinds[1];
    assert!(deployment.namespaced && deployment.preferred_version);
    assert_eq!(deployment.subresources[0].kind, "Scale");
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn discovery_falls_back_and_tolerates_a_group_that_is_down() {
    let (_server, cluster) = scripted(|request| {
        let path = request.split(' ').nth(1).unwrap();
        match path {
            "/api" => Reply::json(200, r#"{"kind":"APIVersions","versions":["v1"]}"#),
            "/apis" => Reply::json(200, r#"{"kind":"APIGroupList","groups":[{"name":"apps","versions":[{"version":"v1"}],"preferredVersion":{"version":"v1"}},{"name":"metrics.k8s.io","versions":[{"version":"v1beta1"}]}]}"#),
            "/api/v1" => Reply::json(200, r#"{"resources":[{"name":"pods","kind":"Pod","namespaced":true,"verbs":["get"]},{"name":"pods/log","kind":"Pod","verbs":["get"]}]}"#),
            "/apis/apps/v1" => Reply::json(200, r#"{"resources":null}"#),
            _ => Reply::json(503, "planted"),
        }
    })
    .await;
    let found = cluster.discovery().await.unwrap();
    assert_eq!(found.kinds.len(), 1);
    assert_eq!(found.kinds[0].subresources[0].name, "log");
    assert_eq!(found.incomplete, ["metrics.k8s.io/v1beta1"]);
}

#[tokio::test]
async fn statuses_of_our_own_requests_have_their_reasons() {
    for (status, reason) in [
        (401, Reason::ApiUnauthorized),
        (403, Reason::ApiUnauthorized),
        (500, Reason::ApiUnreachable),
    ] {
        let (_server, cluster) = scripted(move |_| Reply::json(status, "planted")).await;
        let error = cluster.probe().await.unwrap_err();
        assert_eq!(error.reason(), reason);
        assert!(!format!("{error} {error:?}").contains("planted"));
    }
    let (_server, cluster) = scripted(|_| Reply::json(200, r#"{"metadata":{"uid":"a-b"}}"#)).await;
    assert_eq!(cluster.uid().await.unwrap(), "a-b");
    let (_server, cluster) = scripted(|_| Reply::json(200, r#"{"planted":1}"#)).await;
    let error = cluster.uid().await.unwrap_err();
    assert!(!format!("{} {error:?}", crate::fault::Chain(&error)).contains("planted"));
}

#[tokio::test]
async fn no_log_line_shows_a_token_or_a_body() {
    let (logged, _guard) = Logged::start();
    let (authority, servers) = (Authority::new(), Tasks::new());
    let (port, _) = http2_server(&authority, &servers).await;
    let (http2, _tasks) = cluster(port, &authority, "").await;
    let (_server, http1) = scripted(|_| Reply::json(200, "\"planted-answer\"")).await;
    for (cluster, transport) in [
        (&http2, Transport::Pooled),
        (&http1, Transport::Pooled),
        (&http1, Transport::Wiping),
    ] {
        let request = ApiRequest {
            method: "PUT".into(),
            body: RequestBody::Bytes(Zeroizing::new(b"planted-body".to_vec())),
            ..get(transport)
        };
        let mut answer = cluster.send(request).await.unwrap();
        read_all(&mut answer).await.unwrap();
    }
    let text = logged.text();
    assert!(
        text.contains("TRACE") && text.contains("h2::"),
        "nothing was captured"
    );
    let shown = text.lines().find(|line| line.contains("planted"));
    assert!(shown.is_none(), "{shown:?}");
}

/// A cluster of an account with these rules, whose kubeconfig says this.
async fn cluster_of(cluster: &str, user: &str, rules: Rules) -> Cluster {
    let text = format!(
        "current-context: c\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
         clusters: [{{name: c, cluster: {{{cluster}}}}}]\nusers: [{{name: u, user: {{{user}}}}}]\n"
    );
    let profile = Profile {
        rules,
        ..Profile::sealed()
    };
    let credential = kubeconfig::read(text.as_bytes(), None, &profile).unwrap();
    Cluster::new(Arc::new(credential), Tasks::new())
        .await
        .unwrap()
}

#[tokio::test]
async fn a_password_goes_with_every_request_over_either_transport() {
    let authority = Authority::new();
    let answer = |_: &str| Reply::json(200, "{}");
    let server = Scripted::start(authority.tls(&[b"http/1.1"]), answer).await;
    let there = format!(
        "server: 'https://{}', certificate-authority-data: {}",
        server.address,
        STANDARD.encode(authority.pem())
    );
    let cluster = cluster_of(&there, "username: who, password: planted", Rules::default()).await;
    for transport in BOTH {
        assert_eq!(cluster.send(get(transport)).await.unwrap().status, 200);
    }
    let header = format!("authorization: Basic {}", STANDARD.encode("who:planted"));
    let requests = server.requests();
    assert_eq!(requests.len(), 2);
    assert!(requests.iter().all(|request| request.contains(&header)));
}

#[tokio::test]
async fn an_account_that_allows_plain_http_is_served_over_either_transport() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tasks = Tasks::new();
    let connections = tasks.clone();
    tasks.spawn("plain", move |stop| async move {
        while let Some(Ok((socket, _))) = stop.run_until_cancelled(listener.accept()).await {
            connections.spawn("plain-connection", move |stop| async move {
                let answer = service_fn(|_request| async {
                    Ok::<_, Infallible>(http::Response::new(Full::new(Bytes::from_static(b"{}"))))
                });
                let http = hyper::server::conn::http1::Builder::new();
                let serving = http.serve_connection(TokioIo::new(socket), answer);
                drop(stop.run_until_cancelled(serving).await);
            });
        }
    });
    let there = format!("server: 'http://{address}'");
    let rules = Rules {
        allow: vec![Relaxation::PlainHttp],
        ..Rules::default()
    };
    let cluster = cluster_of(&there, "token: t", rules).await;
    for transport in BOTH {
        let mut answer = cluster.send(get(transport)).await.unwrap();
        assert_eq!(read_all(&mut answer).await.unwrap(), b"{}");
    }
    tasks.cancel();
}
