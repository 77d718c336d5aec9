//! `rillway health`: asks a running daemon for its health. For a container's HEALTHCHECK, where
//! neither a shell nor curl exists.

use std::net::SocketAddr;

use clap::{Args, ValueEnum};

use super::door;
use super::exit::Failure;
use super::schema::write;
use crate::admin::Client;
use crate::config::Env;

/// Arguments of `health`.
#[derive(Debug, Args)]
pub struct HealthArgs {
    /// The question to ask
    #[arg(value_enum, default_value_t)]
    question: Question,
    /// Address of the daemon's admin server [default: from the environment or the configuration]
    #[arg(long, value_name = "ADDRESS:PORT")]
    address: Option<SocketAddr>,
}

/// Asks, prints the answer, and fails if it is not a good one. `configured` is a client by the
/// configuration, at this address if there is one.
///
/// Where an address is given, a configuration that is missing is done without: the daemon may run with
/// another one.
pub fn ask(
    args: &HealthArgs,
    configured: impl FnOnce(Option<SocketAddr>) -> anyhow::Result<Client>,
    env: &Env,
) -> anyhow::Result<()> {
    let address = args.address.or_else(|| door::address_in(env));
    let client = match (configured(address), address) {
        (Ok(client), _) => client,
        (Err(_), Some(address)) => Client::new(address),
        (Err(error), None) => return Err(error),
    };
    let answer = run(&client, args.question).map_err(Failure::Unavailable)?;
    write(&format!("{answer}\n"))
}

/// The question to ask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Question {
    /// Does every loop make progress? If not, a restart helps.
    #[default]
    Live,
    /// Does every consumer work normally? If not, an operator may have to act.
    Ready,
}

impl Question {
    fn path(self) -> &'static str {
        match self {
            Question::Live => "/livez",
            Question::Ready => "/readyz",
        }
    }
}

/// Asks the daemon. `Ok` holds its answer; `Err` holds the
/// reason why it is unhealthy or could not be asked (exit code 69; a HEALTHCHECK takes any code but
/// 0 for "unhealthy").
pub fn run(client: &Client, question: Question) -> Result<String, String> {
    match client.get(question.path()) {
        Ok((200, body)) => Ok(body.trim_end().to_owned()),
        Ok((status, body)) => {
            Err(format!("{} answered {status}: {}", question.path(), body.trim_end()))
        }
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    fn answered(head: &'static str) -> (Result<String, String>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let peer = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = Vec::new();
            let mut byte = [0];
            while !asked.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
                asked.push(byte[0]);
            }
            stream.write_all(head.as_bytes()).unwrap();
            String::from_utf8(asked).unwrap()
        });
        (run(&Client::new(address), Question::Ready), peer.join().unwrap())
    }

    #[test]
    fn well_unwell_and_nonsense() {
        let (well, asked) = answered("HTTP/1.1 200 OK\r\n\r\nfine\n");
        assert_eq!(well, Ok("fine".to_owned()));
        assert!(asked.starts_with("GET /readyz HTTP/1.0\r\n"), "{asked}");
        let (unwell, _) = answered("HTTP/1.1 503 Service Unavailable\r\n\r\nno broker\n");
        assert_eq!(unwell, Err("/readyz answered 503: no broker".to_owned()));
        for nonsense in ["SSH-2.0-OpenSSH_9.2\r\n\r\n", "HTTP/1.1\r\n\r\n", "HTTP/1.1 2 x\r\n\r\n"]
        {
            let error = answered(nonsense).0.unwrap_err();
            assert!(error.contains("not in HTTP"), "{error}");
        }
    }
}
