//! Access to the admin server.

use super::*;

#[test]
fn the_tokens_file_is_remembered_and_the_token_is_not_shown() {
    const TOKEN: &str = "0123456789abcdef0123";
    let file = File::new(&format!(
        "[admin]\ntoken = {{ file = \"token\" }}\ntls = {{ cert = \"c\", key = \"/k\" }}\n{MINIMAL}"
    ));
    let folder = file.0.path();
    std::fs::write(folder.join("token"), format!("{TOKEN}\n")).unwrap();
    let admin = file.load(&Env::default()).unwrap().admin;
    assert_eq!(admin.token_file, Some(folder.join("token")));
    assert_eq!(admin.token.as_ref().map(|token| token.reveal()), Some(TOKEN));
    let tls = admin.tls.clone().unwrap();
    assert_eq!((tls.cert, tls.key), (folder.join("c"), "/k".into()));
    assert!(!format!("{admin:?}").contains(TOKEN));
    assert!(!serde_json::to_string(&admin).unwrap().contains(TOKEN));

    let creds = folder.display().to_string();
    let env = Env::from([("CREDENTIALS_DIRECTORY", creds.as_str()), ("TOKEN", TOKEN)]);
    for (token, from) in [
        ("{ credential = \"token\" }", Some(folder.join("token"))),
        ("{ env = \"TOKEN\" }", None),
        (&format!("{TOKEN:?}"), None),
    ] {
        let file = File::new(&format!("[admin]\ntoken = {token}\n{MINIMAL}"));
        let admin = file.load(&env).unwrap().admin;
        assert_eq!(admin.token.map(|token| token.reveal().to_owned()).as_deref(), Some(TOKEN));
        assert_eq!(admin.token_file, from, "{token}");
    }
}

#[test]
fn what_other_machines_can_reach_is_told() {
    let told = |admin: &str| {
        let text = format!("[admin]\n{admin}\n{MINIMAL}");
        load(&text).unwrap().admin.concerns()
    };
    let token = "token = \"0123456789abcdef\"";
    for local in ["127.0.0.1:1", "[::1]:1", "127.3.2.1:1", "[::ffff:127.0.0.1]:1"] {
        assert_eq!(told(&format!("listen = {local:?}")), Vec::<String>::new());
    }
    for open in ["0.0.0.0:1", "[::]:1", "10.1.2.3:1"] {
        let listen = format!("listen = {open:?}");
        assert!(told(&listen)[0].contains("commands are refused"), "{open}");
        assert!(told(&format!("{listen}\n{token}"))[0].contains("unencrypted"), "{open}");
        let tls = "tls = { cert = \"c\", key = \"k\" }";
        assert!(told(&format!("{listen}\n{token}\n{tls}")).is_empty(), "{open}");
        assert!(told(&format!("{listen}\nenabled = false")).is_empty(), "{open}");
    }
}
