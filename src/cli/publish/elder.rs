//! Brokers before RabbitMQ 3.11, which the official client does not support.
//!
//! After the login, the client asks for the versions of commands, without checking whether the
//! broker supports that request. A broker before 3.11 does not, and closes the connection. So for
//! such a broker the client connects through a bridge on this host: it passes every frame on
//! unchanged, but answers this request itself. The bridge serves a single connection, and ends with
//! it.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::{
    AsyncBufRead, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, BufWriter,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;

use crate::config::BrokerAddress;

/// Key of the request, and the bit that marks the answer.
const EXCHANGE_COMMAND_VERSIONS: u16 = 0x001b;
const ANSWER: u16 = 0x8000;
const CODE_OK: u16 = 1;
const PUBLISH: u16 = 2;

/// Largest request in bytes: it holds only a few versions.
const REQUEST_BYTES_MAX: u32 = 64 * 1024;
/// Bytes that are read and written at once.
const BUFFER_BYTES: usize = 64 * 1024;
/// Time limit for the client to connect.
const ACCEPT_WITHIN: Duration = Duration::from_secs(5);

/// Connects to the broker, and returns the address of the bridge for the client.
pub(super) async fn bridge(broker: &BrokerAddress) -> io::Result<BrokerAddress> {
    let broker = TcpStream::connect((broker.host.as_str(), broker.port)).await?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let here = listener.local_addr()?;
    tokio::spawn(async move {
        if let Ok(Ok((client, _))) = tokio::time::timeout(ACCEPT_WITHIN, listener.accept()).await {
            drop(listener);
            // Small frames, such as confirmations, should not wait for each other.
            drop((client.set_nodelay(true), broker.set_nodelay(true)));
            carry(client, broker).await;
        }
    });
    Ok(BrokerAddress { host: here.ip().to_string(), port: here.port() })
}

/// Passes frames both ways until one side ends; then both end.
async fn carry<S>(client: S, broker: S)
where
    S: AsyncRead + AsyncWrite,
{
    let (from_client, to_client) = tokio::io::split(client);
    let (from_broker, to_broker) = tokio::io::split(broker);
    let mut from_client = BufReader::with_capacity(BUFFER_BYTES, from_client);
    let mut from_broker = BufReader::with_capacity(BUFFER_BYTES, from_broker);
    // A frame is written in one piece: RabbitMQ 3.10 closes a connection on which a part of the
    // first frame arrives alone ("Invalid transition from tcp_connected to tcp_connected").
    let mut to_broker = BufWriter::with_capacity(BUFFER_BYTES, to_broker);
    let to_client = Mutex::new(BufWriter::with_capacity(BUFFER_BYTES, to_client));
    let requests = async {
        loop {
            let size = from_client.read_u32().await?;
            let key = from_client.read_u16().await?;
            if key == EXCHANGE_COMMAND_VERSIONS && size <= REQUEST_BYTES_MAX {
                let mut rest = vec![0; (size as usize).saturating_sub(2)];
                from_client.read_exact(&mut rest).await?;
                let mut to_client = to_client.lock().await;
                to_client.write_all(&answer(&rest)).await?;
                to_client.flush().await?;
                continue;
            }
            to_broker.write_u32(size).await?;
            to_broker.write_u16(key).await?;
            pass(&mut from_client, &mut to_broker, u64::from(size.saturating_sub(2))).await?;
        }
    };
    let answers = async {
        loop {
            let size = from_broker.read_u32().await?;
            // Held for the whole frame, so that an answer of the bridge cannot interrupt it.
            let mut to_client = to_client.lock().await;
            to_client.write_u32(size).await?;
            pass(&mut from_broker, &mut *to_client, u64::from(size)).await?;
        }
    };
    // Either way the connection is over, and the client sees its end.
    let ended: io::Result<()> =
        tokio::select! { ended = requests => ended, ended = answers => ended };
    let error = ended.err().map(|error| error.to_string());
    tracing::debug!(error, "the bridge to a broker before 3.11 has ended");
}

async fn pass(
    from: &mut (impl AsyncBufRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    bytes: u64,
) -> io::Result<()> {
    let passed = tokio::io::copy_buf(&mut from.take(bytes), to).await?;
    to.flush().await?;
    if passed < bytes { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
}

/// "Publish, version 1" as the answer to a request with this version and correlation id.
fn answer(rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend((ANSWER | EXCHANGE_COMMAND_VERSIONS).to_be_bytes());
    body.extend(1u16.to_be_bytes());
    body.extend(rest.get(2..6).unwrap_or(&[0; 4])); // the correlation id
    body.extend(CODE_OK.to_be_bytes());
    body.extend(1u32.to_be_bytes());
    body.extend([PUBLISH, 1, 1].map(u16::to_be_bytes).concat());
    let size = u32::try_from(body.len()).unwrap_or_default();
    [&size.to_be_bytes()[..], &body].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_request_is_answered_and_all_else_passed_on() {
        let (mut client, near) = tokio::io::duplex(64);
        let (far, broker) = tokio::io::duplex(64);
        let bridge = tokio::spawn(carry(near, far));

        let frame = |body: &[u8]| [&(body.len() as u32).to_be_bytes()[..], body].concat();
        let asked = frame(&[0, 0x1b, 0, 1, 1, 2, 3, 4, 0, 0, 0, 0]);
        client.write_all(&asked).await.unwrap();
        let mut answered = vec![0; 4 + 20];
        client.read_exact(&mut answered).await.unwrap();
        let wanted = frame(&[0x80, 0x1b, 0, 1, 1, 2, 3, 4, 0, 1, 0, 0, 0, 1, 0, 2, 0, 1, 0, 1]);
        assert_eq!(answered, wanted);

        // Larger than any buffer, both ways at once.
        let large = frame(&[7; 100_000]);
        let (mut there, mut back) = (vec![0; large.len()], vec![0; large.len()]);
        let (mut from_client, mut to_client) = tokio::io::split(client);
        let (mut from_broker, mut to_broker) = tokio::io::split(broker);
        let done = tokio::try_join!(
            to_client.write_all(&large),
            to_broker.write_all(&large),
            async { from_broker.read_exact(&mut there).await.map(drop) },
            async { from_client.read_exact(&mut back).await.map(drop) },
        );
        done.unwrap();
        assert!(there == large && back == large);

        drop((from_client, to_client));
        bridge.await.unwrap();
        assert_eq!(from_broker.read(&mut [0]).await.unwrap(), 0, "the broker's side is closed too");
    }
}
