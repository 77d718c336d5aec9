//! Where secrets come from, and that nothing ever shows them.

use super::*;
use crate::types::Secret;

#[test]
fn secrets_come_from_where_they_are_said_to_be() {
    let file = File::new(&format!(
        "[broker]\nuri = {{ env = \"URI\" }}\nusername = {{ file = \"user\" }}\npassword = {{ credential = \"pw\" }}\n{MINIMAL}"
    ));
    let folder = file.0.path();
    std::fs::write(folder.join("user"), "me\r\n").unwrap();
    std::fs::create_dir(folder.join("creds")).unwrap();
    std::fs::write(folder.join("creds/pw"), " pa ss \n\n").unwrap();
    let creds = folder.join("creds").display().to_string();
    let env = Env::from([("URI", "rabbitmq-stream://h"), ("CREDENTIALS_DIRECTORY", &creds)]);
    let broker = file.load(&env).unwrap().broker;
    assert_eq!(broker.username, "me");
    assert_eq!(broker.password, Secret::new(" pa ss \n"));
    assert_eq!(broker.addresses[0].host, "h");
}

#[test]
fn a_secret_that_is_not_there_is_named_by_its_place() {
    let with = |password: &str| format!("[broker]\npassword = {password}\n{MINIMAL}");
    let found = tempfile::tempdir().unwrap();
    let creds = found.path().display().to_string();
    std::fs::write(found.path().join("empty"), "\n").unwrap();
    std::fs::write(found.path().join("binary"), [0xff, 0xfe]).unwrap();
    std::fs::write(found.path().join("huge"), vec![b'x'; 65 * 1024]).unwrap();
    let env = Env::from([("CREDENTIALS_DIRECTORY", creds.as_str()), ("EMPTY", "")]);
    for (password, says) in [
        ("{ env = \"NOPE\" }", "variable NOPE is not set"),
        ("{ env = \"EMPTY\" }", "empty"),
        ("{ file = \"nope.txt\" }", "nope.txt"),
        ("{ credential = \"nope\" }", "nope"),
        ("{ credential = \"../etc/passwd\" }", "not the name of a credential"),
        ("{ credential = \"empty\" }", "empty"),
        ("{ credential = \"binary\" }", "not UTF-8"),
        ("{ credential = \"huge\" }", "longer than 65536"),
        ("{ env = \"A\", file = \"B\" }", "not a reference to a secret"),
        ("{ }", "not a reference to a secret"),
        ("{ evn = \"A\" }", "did you mean `env`"),
    ] {
        let found = problems(&with(password), &env);
        assert!(found[0].starts_with("broker.password"), "{found:#?}");
        assert!(found[0].contains(says), "{password}: {found:#?}");
    }
    let found = problems(&with("{ credential = \"x\" }"), &Env::default());
    assert!(found[0].contains("LoadCredential=x"), "{found:#?}");
}

#[test]
fn nothing_ever_shows_a_secret() {
    const SECRET: &str = "hunter2";
    // Taken: Debug of the whole.
    let text = format!("[broker]\nuri = \"rabbitmq-stream://u:{SECRET}@h\"\n{MINIMAL}");
    let file = File::new(&text);
    let config = file.load(&Env::default()).unwrap();
    assert_eq!(config.broker.password.reveal(), SECRET);
    assert!(!format!("{config:?} {config:#?}").contains(SECRET));
    let env = Env::from([("RILLWAY__BROKER__PASSWORD", SECRET)]);
    assert!(!format!("{env:?}").contains(SECRET));

    // Refused: every way of getting it wrong.
    let digits = SECRET.trim_start_matches(char::is_alphabetic);
    for bad in [
        format!("broker = \"rabbitmq-stream://u:{SECRET}@h\""),
        format!("broker = \"{SECRET}\""),
        format!("[broker]\nuri = \"mqtt://u:{SECRET}@h\""),
        format!("[broker]\nuri = \"rabbitmq-stream://u:{SECRET}@h:x\""),
        format!("[broker]\nuri = [\"rabbitmq-stream://u:{SECRET}@h\"]"),
        format!(
            "[broker]\nuris = [\"rabbitmq-stream://u:{SECRET}@h\", \"rabbitmq-stream://v:{SECRET}@h\"]"
        ),
        format!("[broker]\nuris = [[\"{SECRET}\"]]"),
        format!("[broker]\nur = \"rabbitmq-stream://u:{SECRET}@h\""),
        format!("[broker]\npassword = [\"{SECRET}\"]"),
        format!("[broker]\npassword = {{ env = [\"{SECRET}\"] }}"),
        format!("[broker]\npassword = \"{SECRET}\nx = 5"),
        format!("[broker]\npassword = {SECRET}"),
        format!("[broker]\nheartbeat = \"rabbitmq-stream://u:{SECRET}@h\""),
        format!("[broker]\ntls = \"rabbitmq-stream://u:{SECRET}@h\""),
        format!("[broker]\nmechanism = \"rabbitmq-stream://u:{SECRET}@h\""),
        format!("[broker]\npassword = \"{SECRET}\"\npassword = \"{SECRET}\""),
    ] {
        let error = load(&format!("{bad}\n{MINIMAL}")).unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains(SECRET), "{bad}\n{shown}");
    }
    let error = load(&format!("[broker]\npassword = 4242424{digits}\n{MINIMAL}")).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("4242424"), "{error}");
    let error = File::new(MINIMAL)
        .load(&Env::from([("RILLWAY__BROKER", format!("rabbitmq-stream://u:{SECRET}@h"))]))
        .unwrap_err();
    assert!(!format!("{error} {error:?}").contains(SECRET), "{error}");
}

/// Hosts, ports and paths are shown in errors. Part of a password must never be parsed as one of them.
#[test]
fn a_password_that_is_not_percent_encoded_is_refused() {
    let of = |sink: &str| {
        load(&format!("[[consumer]]\nname = \"c\"\nstream = \"s\"\n[consumer.sink]\n{sink}\n"))
    };
    for separator in ["/", "?", "#"] {
        for (kind, head, tail) in [
            ("http", "http://me", "@service:8080/path"),
            ("http", "https://me", "@service"),
            ("object", "s3://key", "@bucket/prefix"),
        ] {
            // Digits in front may be a port; letters never are.
            for password in [format!("12{separator}hunter2"), format!("hunter2{separator}12")] {
                let url = format!("{head}:{password}{tail}");
                let error = of(&format!("type = \"{kind}\"\nurl = \"{url}\"")).unwrap_err();
                let shown = format!("{error} {error:?}");
                let hint = if kind == "http" { "%40" } else { "credentials are for `options`" };
                assert!(shown.contains(hint), "{url}: {shown}");
                assert!(!shown.contains("hunter2"), "{url}: {shown}");
            }
        }
    }
    for taken in [
        "type = \"http\"\nurl = \"http://me:p%2Fss@service:8080/a\"",
        "type = \"http\"\nurl = \"http://service/@me?to=a@b\"",
        "type = \"http\"\nurl = \"http://[::1]:8080/@me\"",
        "type = \"http\"\nurl = \"http://service:8080/%40me\"",
        "type = \"object\"\nurl = \"s3://bucket/a@b\"",
    ] {
        of(taken).unwrap();
    }
}
