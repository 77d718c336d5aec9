//! Does each certificate that does not fit stop the connection, over both protocols, and say what to
//! do?

use super::*;

struct Case {
    name: &'static str,
    user: &'static str,
    keys: &'static str,
    /// What it says; nothing where it works.
    says: &'static [&'static str],
}

const OURS: &str = "cert = \"client.pem\", key = \"client-key.pem\"";

fn cases() -> Vec<Case> {
    let case = |name, user, keys, says| Case { name, user, keys, says };
    vec![
        case("right", "guest:guest@", "ca = \"ca.pem\", OURS", &[]),
        case("by its certificate", "", "ca = \"ca.pem\", OURS", &[]),
        case(
            "another authority",
            "guest:guest@",
            "ca = \"other-ca.pem\", OURS",
            &["not signed by a trusted authority", "Set tls.ca"],
        ),
        case(
            "another name",
            "guest:guest@",
            "ca = \"ca.pem\", server_name = \"elsewhere.example\", OURS",
            &["valid for localhost, not for elsewhere.example", "set tls.server_name"],
        ),
        case(
            "no certificate",
            "guest:guest@",
            "ca = \"ca.pem\"",
            &["client certificate", "tls.cert and tls.key"],
        ),
        case(
            "a foreign certificate",
            "guest:guest@",
            "ca = \"ca.pem\", cert = \"other.pem\", key = \"other-key.pem\"",
            &["does not accept the client certificate", "Set tls.cert"],
        ),
        case(
            "an expired certificate",
            "guest:guest@",
            "ca = \"ca.pem\", cert = \"old.pem\", key = \"old-key.pem\"",
            &["client certificate has expired", "Replace the files"],
        ),
        case(
            "the key of another",
            "guest:guest@",
            "ca = \"ca.pem\", cert = \"client.pem\", key = \"other-key.pem\"",
            &["cannot use certificate", "client.pem", "other-key.pem"],
        ),
        case(
            "half a file",
            "guest:guest@",
            "ca = \"half.pem\", OURS",
            &["cannot use CA certificate", "half.pem"],
        ),
    ]
}

/// `check --connect` with these settings: whether it found everything in order, and what it says.
fn checked(home: &Home) -> (bool, String) {
    let checked = home.command(&["check", "--connect"]).output().unwrap();
    let all = [checked.stdout, checked.stderr].concat();
    (checked.status.success(), String::from_utf8_lossy(&all).into_owned())
}

async fn each_says_what_to_do(version: Version) -> Result<(), Unavailable> {
    let authority = Authority::new("authority");
    // Of the same name, as one that was made anew.
    let other = Authority::new("authority");
    let (broker, ports) =
        demanding(version, &authority.ca, &authority.broker(&["localhost"])).await?;
    let stream = streams::create(&broker, "tls-refusals").await;
    let consumer = format!(
        "[[consumer]]\nname = \"c\"\nstream = \"{stream}\"\nsink = {{ type = \"file\", dir = \"out\" }}\n"
    );
    let home = Home::with_broker("", &consumer);
    let (client, foreign) = (authority.guest("ours"), other.guest("theirs"));
    let old = authority.expired("guest", &[]);
    for (name, content) in [
        ("ca.pem", &authority.ca),
        ("other-ca.pem", &other.ca),
        ("half.pem", &authority.ca[..authority.ca.len() / 2].to_owned()),
        ("client.pem", &client.0),
        ("client-key.pem", &client.1),
        ("other.pem", &foreign.0),
        ("other-key.pem", &foreign.1),
        ("old.pem", &old.0),
        ("old-key.pem", &old.1),
    ] {
        std::fs::write(home.path(name), content).unwrap();
    }
    let both = [("rabbitmq-stream+tls", ports.stream), ("amqps", ports.amqp)];
    let ask = |scheme: &str, port: u16, case: &Case| {
        let mechanism = if case.user.is_empty() { "mechanism = \"external\"\n" } else { "" };
        let keys = case.keys.replace("OURS", OURS);
        let rest = format!("{mechanism}tls = {{ {keys} }}");
        home.configure(&settings(scheme, case.user, port, &rest), &consumer);
        let (is_fine, said) = checked(&home);
        let name = format!("{scheme}, {}", case.name);
        assert_eq!(is_fine, case.says.is_empty(), "{name}: {said}");
        for says in case.says {
            assert!(said.contains(says), "{name}: {says:?} is not in: {said}");
        }
    };
    for (scheme, port) in both {
        cases().iter().for_each(|case| ask(scheme, port, case));
    }
    certify(&broker, &authority.expired("broker", &["localhost"])).await;
    let expired = Case {
        name: "the broker's has expired",
        user: "guest:guest@",
        keys: "ca = \"ca.pem\", OURS",
        says: &["has expired", "Have the peer's certificate renewed"],
    };
    let anyhow = Case {
        name: "any is accepted",
        user: "guest:guest@",
        keys: "insecure_skip_verify = true, OURS",
        says: &[],
    };
    for (scheme, port) in both {
        ask(scheme, port, &expired);
        ask(scheme, port, &anyhow);
        let (_, said) = checked(&home);
        assert!(said.contains("INSECURE: any certificate is accepted"), "{said}");
    }
    Ok(())
}

#[tokio::test]
async fn refused_certificates_say_what_to_do_on_rabbitmq_4_3() {
    or_skip!(each_says_what_to_do(Version::V4_3).await);
}

#[tokio::test]
async fn refused_certificates_say_what_to_do_on_rabbitmq_4_0() {
    or_skip!(each_says_what_to_do(Version::V4_0).await);
}
