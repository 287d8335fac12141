//! The command line presents certificates, tokens and users' tokens.

use crate::support::broker::{BrokerBuilder, TestBroker};
use crate::support::hostile::HostileServer;

use super::{Pki, SUBJECT, TestIssuer, subject_of, trusting};

async fn run(broker: &TestBroker, args: &[&str]) -> (i32, String) {
    // Without the API key that a site gives its own commands.
    let output = broker.site().command(args).output().await.unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    (output.status.code().unwrap(), text)
}

#[tokio::test]
async fn certificates_and_tokens_say_who_calls_and_for_whom() {
    let pki = Pki::new();
    let issuer = TestIssuer::start("k1").await;
    let provider = HostileServer::start().await;
    let broker =
        trusting(pki.mtls(BrokerBuilder::new().hostile(&provider)), "one", &issuer, &["callers", "users"])
            .set("callers.agent.subjects", vec![subject_of(&issuer.url(), SUBJECT)])
            .spawn_process()
            .await;
    let leaf = pki.ours.svid("spiffe://example.org/agent");
    pki.write("client.crt", &leaf.chain);
    pki.write("client.key", &leaf.key);
    pki.write("server-ca.crt", pki.server.pem());
    pki.write("token", &format!("{}\n", issuer.token(SUBJECT)));
    pki.write("user", &format!("{}\n", issuer.token("alice")));
    pki.write("bad", "a.b.c");
    pki.write("empty", "");
    let file = |name: &str| pki.path(name);
    let endpoint = format!("https://localhost:{}", broker.site().ports.grpc);
    let (ca, certificate, key) = (file("server-ca.crt"), file("client.crt"), file("client.key"));
    let (token, user, bad, empty) = (file("token"), file("user"), file("bad"), file("empty"));
    let to = ["--endpoint", &endpoint, "--ca-file", &ca];
    let mtls = ["--client-certificate-file", &certificate, "--client-key-file", &key];
    let get = ["get", "hostile", "files"];
    let call = |parts: &[&[&str]]| parts.concat().into_iter().map(str::to_owned).collect::<Vec<_>>();
    for (what, args, code, says) in [
        ("by certificate", call(&[&["list"], &to, &mtls]), 0, ""),
        ("by token", call(&[&["list"], &to, &["--token-file", &token]]), 0, ""),
        ("by both", call(&[&["list"], &to, &mtls, &["--token-file", &token]]), 0, ""),
        ("by nothing", call(&[&["list"], &to]), 2, "--token-file"),
        ("by a bad token", call(&[&["list"], &to, &["--token-file", &bad]]), 8, "UNAUTHENTICATED"),
        (
            "by a bad token and a certificate",
            call(&[&["list"], &to, &mtls, &["--token-file", &bad]]),
            8,
            "UNAUTHENTICATED",
        ),
        ("by an empty file", call(&[&["list"], &to, &["--token-file", &empty]]), 2, "there is no"),
        ("by no file", call(&[&["list"], &to, &["--token-file", "nowhere"]]), 2, "nowhere"),
        ("a certificate without its key", call(&[&["list"], &to, &mtls[..2]]), 2, "--client-key-file"),
        (
            "for the user of a token",
            call(&[&get, &to, &mtls, &["--user-token-file", &user]]),
            10,
            "NOT_CONNECTED",
        ),
        (
            "for that user by name",
            call(&[&get, &to, &mtls, &["--user-token-file", &user, "-u", "one|alice"]]),
            10,
            "NOT_CONNECTED",
        ),
        (
            "for another user",
            call(&[&get, &to, &mtls, &["--user-token-file", &user, "-u", "alice"]]),
            8,
            "PERMISSION_DENIED",
        ),
        (
            "for the user of a bad token",
            call(&[&get, &to, &mtls, &["--user-token-file", &bad]]),
            8,
            "USER_TOKEN_INVALID",
        ),
        ("for nobody", call(&[&get, &to, &mtls]), 2, "--user"),
    ] {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let (ended, text) = run(&broker, &[&args[..], &["--output", "json"]].concat()).await;
        assert_eq!(ended, code, "{what}: {text}");
        assert!(text.contains(says), "{what}: {text}");
    }
    // And the log says why.
    broker.wait_for_log("a token was refused").await;
    let logs = broker.logs();
    for file in [&token, &user] {
        let secret = std::fs::read_to_string(file).unwrap();
        assert!(!logs.contains(secret.trim()) && !logs.contains(secret.trim().rsplit_once('.').unwrap().1));
    }
}
