//! Every way to log in, and what becomes of a login.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{KeyPair, PublicKeyData as _};
use sortie::credential::{Identity, OwnCertificate};
use time::OffsetDateTime;

use super::*;
use crate::support::eventually::eventually_async;
use crate::support::pki::Leaf;

/// Lets a role log in by `AppRole`; gives its id.
async fn enable_approle(bench: &Bench, settings: Value) -> String {
    bench.enable_auth("approle").await;
    let mut role = settings;
    role["token_policies"] = json!(["reader"]);
    bench.bao.write("auth/approle/role/agent", &role).await;
    let path = "auth/approle/role/agent/role-id";
    let read = bench
        .bao
        .ask(Method::GET, path, &Value::Null)
        .await
        .success();
    read["data"]["role_id"].as_str().unwrap().to_owned()
}

fn approle(role_id: &str, secret_id_file: PathBuf, wrapped: bool) -> Proof {
    Proof::AppRole {
        role_id: role_id.to_owned(),
        secret_id_file,
        wrapped,
    }
}

async fn secret_id(bench: &Bench) -> String {
    let path = "auth/approle/role/agent/secret-id";
    let made = bench.bao.write(path, &json!({})).await;
    made["data"]["secret_id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_role_logs_in_with_its_secret_id_until_that_is_used_up() {
    let bench = Bench::start().await;
    let role_id = enable_approle(&bench, json!({"secret_id_num_uses": 1})).await;
    let file = bench.file("secret-id", &secret_id(&bench).await);
    let proof = approle(&role_id, file, false);
    let vault = bench.with_login("approle", proof.clone());
    assert_eq!(text(&fetch(&vault, &shop()).await), "planted-value");
    fetch(&vault, &shop()).await;

    let second = bench.with_login("approle", proof);
    let failure = refused(&second, &shop()).await;
    is_unauthenticated(&failure, "used up");
    assert_eq!(failure.status, Some(400));
    bench.file("secret-id", &secret_id(&bench).await);
    fetch(&second, &shop()).await;
}

#[tokio::test]
async fn a_wrapped_secret_id_is_unwrapped_once_and_a_second_use_is_told() {
    let bench = Bench::start().await;
    let role_id = enable_approle(&bench, json!({})).await;
    let wrapped = bench
        .bao
        .write_wrapped("auth/approle/role/agent/secret-id", &json!({}))
        .await;
    let file = bench.file("wrapped", &wrapped);
    let proof = approle(&role_id, file, true);
    let before = bench.tokens().await;
    let vault = bench.with_login("approle", proof.clone());
    fetch(&vault, &shop()).await;
    // A second login needs no second unwrapping.
    for accessor in bench.new_tokens(&before).await {
        let body = json!({"accessor": accessor});
        bench.bao.write("auth/token/revoke-accessor", &body).await;
    }
    fetch(&vault, &shop()).await;

    let thief = bench.with_login("approle", proof);
    let failure = refused(&thief, &shop()).await;
    is_unauthenticated(&failure, "was used before");
    let fresh = bench
        .bao
        .write_wrapped("auth/approle/role/agent/secret-id", &json!({}))
        .await;
    bench.file("wrapped", &fresh);
    fetch(&thief, &shop()).await;
    // Opened by somebody, and wrapped again.
    let opened = json!({"secret_id": secret_id(&bench).await});
    let again = bench.bao.write_wrapped("sys/wrapping/wrap", &opened).await;
    let file = bench.file("again", &again);
    let other = bench.with_login("approle", approle(&role_id, file, true));
    is_unauthenticated(&refused(&other, &shop()).await, "opened it on its way");
    // Not a wrapping token at all.
    bench.file("wrapped", "planted-nonsense");
    let other = bench.with_login(
        "approle",
        approle(&role_id, bench.folder.path().join("wrapped"), true),
    );
    is_unauthenticated(&refused(&other, &shop()).await, "was used before");
}

#[tokio::test]
async fn a_signed_token_logs_in_where_its_subject_is_bound() {
    let bench = Bench::start().await;
    bench.enable_auth("jwt").await;
    let key = KeyPair::generate().unwrap();
    let public = pem_of(&key.subject_public_key_info());
    let keys =
        json!({"jwt_validation_pubkeys": [public], "bound_issuer": "https://issuer.example"});
    bench.bao.write("auth/jwt/config", &keys).await;
    let role = json!({
        "role_type": "jwt", "user_claim": "sub", "bound_audiences": ["bao"],
        "bound_subject": "agent", "token_policies": ["reader"],
    });
    bench.bao.write("auth/jwt/role/agent", &role).await;
    let signed = |subject: &str| {
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let claims = json!({
            "iss": "https://issuer.example", "sub": subject, "aud": "bao",
            "iat": now, "exp": now + 600,
        });
        let signer = EncodingKey::from_ec_pem(key.serialize_pem().as_bytes()).unwrap();
        jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &signer).unwrap()
    };
    let proof = Proof::Jwt {
        role: Some("agent".to_owned()),
        token_file: bench.file("jwt", &signed("somebody")),
    };
    let vault = bench.with_login("jwt", proof);
    is_unauthenticated(&refused(&vault, &shop()).await, "subject");
    bench.file("jwt", &signed("agent"));
    assert_eq!(text(&fetch(&vault, &shop()).await), "planted-value");
}

#[tokio::test]
async fn the_certificate_of_the_connection_logs_in() {
    let bench = Bench::start().await;
    bench.enable_auth("cert").await;
    let role = json!({
        "certificate": bench.authority.pem(), "token_policies": ["reader"],
        "allowed_uri_sans": ["spiffe://example.org/agent/*"],
    });
    bench.bao.write("auth/cert/certs/agent", &role).await;
    let connection = |name: &str, role: Option<&str>| {
        let leaf = Leaf::client(&format!("spiffe://example.org/{name}"));
        let stem = name.replace('/', "-");
        let issued = bench.authority.issue(&leaf);
        let (certificate_file, key_file) = issued.write(bench.folder.path(), &stem);
        let role = role.map(str::to_owned);
        let mut settings = bench.settings(login("cert", Proof::Certificate { role }));
        settings.certificate = Some(Identity::Files {
            certificate_file,
            key_file,
        });
        Vault::new(settings, OwnCertificate::default())
    };
    for role in [None, Some("agent")] {
        fetch(&connection("agent/lab", role), &shop()).await;
    }
    let wrong = [
        connection("agent/lab", Some("other")),
        connection("client/lab", None),
        bench.with_login("cert", Proof::Certificate { role: None }),
    ];
    for vault in wrong {
        is_unauthenticated(&refused(&vault, &shop()).await, "certificate-file");
    }
}

#[tokio::test]
async fn one_login_serves_a_hundred_fetches_and_is_given_back() {
    let bench = Bench::start().await;
    let proof = bench.enable_userpass(json!({})).await;
    let vault = bench.with_login("userpass", proof);
    let before = bench.tokens().await;
    let asked = shop();
    let fetches = (0..100).map(|_| fetch(&vault, &asked));
    futures_util::future::join_all(fetches).await;
    assert_eq!(bench.new_tokens(&before).await.len(), 1);
    vault.close().await;
    assert!(bench.new_tokens(&before).await.is_empty());
}

#[tokio::test]
async fn a_wrong_password_is_told_and_a_right_one_is_read_anew() {
    let bench = Bench::start().await;
    let proof = bench.enable_userpass(json!({})).await;
    bench.file("password", "planted-wrong");
    let vault = bench.with_login("userpass", proof);
    is_unauthenticated(&refused(&vault, &shop()).await, "password-file");
    bench.file("password", "planted pass word");
    fetch(&vault, &shop()).await;
}

#[tokio::test]
async fn a_login_is_renewed_before_its_term_ends_and_made_anew_at_the_end_of_its_life() {
    let bench = Bench::start().await;
    let tokens = json!({"token_ttl": "3s", "token_max_ttl": "8s"});
    let proof = bench.enable_userpass(tokens).await;
    let vault = bench.with_login("userpass", proof);
    let before = bench.tokens().await;
    fetch(&vault, &shop()).await;
    let first = bench.new_tokens(&before).await;
    let is_renewed = async |accessor: &String| {
        let body = json!({"accessor": accessor});
        let path = "auth/token/lookup-accessor";
        let about = bench.bao.ask(Method::POST, path, &body).await.json();
        about["data"]["last_renewal_time"].is_u64()
    };
    eventually_async("the login is renewed", async || {
        fetch(&vault, &shop()).await;
        is_renewed(&first[0]).await.then_some(())
    })
    .await;
    assert_eq!(bench.new_tokens(&before).await, first);
    eventually_async("another login is made", async || {
        fetch(&vault, &shop()).await;
        (bench.new_tokens(&before).await != first).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_login_that_was_revoked_is_made_anew_within_the_fetch() {
    let bench = Bench::start().await;
    let proof = bench.enable_userpass(json!({})).await;
    let vault = bench.with_login("userpass", proof);
    fetch(&vault, &shop()).await;
    bench
        .bao
        .write("sys/leases/revoke-prefix/auth/userpass", &json!({}))
        .await;
    fetch(&vault, &shop()).await;
}

fn pem_of(spki: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(spki);
    format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n")
}
