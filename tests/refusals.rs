//! When a broker will not have us, or it is not the broker that answers: does the error say so, and what
//! to do?

use crate::common::daemon::Home;
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, streams};

/// What `check --connect` says of a consumer on this broker.
fn told(uri: &str, stream: &str) -> String {
    let consumer = format!(
        "[[consumer]]\nname = \"c\"\nstream = \"{stream}\"\nsink = {{ type = \"null\" }}\n"
    );
    let home = Home::new(uri, &consumer);
    let checked = home.command(&["check", "--connect"]).output().unwrap();
    let error = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert_eq!(checked.status.code(), Some(69), "{error}");
    error
}

async fn other_ports() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "ports").await;
    let port = broker.amqp_port;
    let amqp = told(&broker.uri_by(port), &stream);
    assert!(amqp.contains("AMQP 0.9.1 listener") && amqp.contains(&format!(":{port}")), "{amqp}");
    assert!(amqp.contains("5552"), "{amqp}");
    let encrypted = broker.uri().replacen("rabbitmq-stream:", "rabbitmq-stream+tls:", 1);
    let tls = told(&encrypted, &stream);
    assert!(tls.contains(&format!(":{}", broker.stream_port)) && tls.contains("TLS"), "{tls}");
    Ok(())
}

#[tokio::test]
async fn another_port_says_what_answers_there() {
    or_skip!(other_ports().await);
}

async fn rights_and_limits() -> Result<(), Unavailable> {
    let broker = Broker::private(Version::V4_3).await?;
    let stream = streams::create(&broker, "rights").await;
    broker.ctl(&["rabbitmqctl", "add_user", "svc", "pw"]).await;
    let uri = broker.uri().replacen("guest:guest", "svc:pw", 1);
    let none = told(&uri, &stream);
    assert!(none.contains("set_permissions -p '/' 'svc'"), "{none}");
    broker.ctl(&["rabbitmqctl", "set_permissions", "-p", "/", "svc", "", "", "^other$"]).await;
    let unread = told(&uri, &stream);
    assert!(unread.contains("set_permissions") && unread.contains(&stream), "{unread}");
    broker.ctl(&["rabbitmqctl", "set_vhost_limits", "-p", "/", "{\"max-connections\": 0}"]).await;
    let full = told(&broker.uri(), &stream);
    assert!(full.contains("list_vhost_limits -p '/'"), "{full}");
    Ok(())
}

#[tokio::test]
async fn a_user_without_rights_and_a_reached_limit_say_what_to_do() {
    or_skip!(rights_and_limits().await);
}
