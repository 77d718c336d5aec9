//! TLS of the admin server.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;

use crate::sync::lock;
use crate::tls::{ServerOptions, ServerTls, TlsError};

/// Time after which a new connection looks at the files again.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// First byte of a TLS connection: a handshake record.
const HANDSHAKE: u8 = 22;

/// Answer to a client that does not speak TLS.
const NOT_TLS: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\n\
    this port speaks TLS ([admin] tls is set): use https://\n";

/// Encryption of the connections, with the certificate that the files hold.
pub struct Tls {
    server: Arc<ServerTls>,
    /// Time of the last look at the files, and the result.
    in_use: Mutex<(Instant, Arc<ServerConfig>)>,
}

impl Tls {
    /// Reads the files; may block.
    ///
    /// # Errors
    /// If they cannot be used.
    pub fn load(options: ServerOptions) -> Result<Tls, TlsError> {
        let server = ServerTls::new(options);
        let config = server.current()?;
        Ok(Tls { server: Arc::new(server), in_use: Mutex::new((Instant::now(), config)) })
    }

    /// The handshake. The caller sets the time limit.
    pub(super) async fn accept(&self, mut stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let mut first = [0];
        if stream.peek(&mut first).await? == 1 && first != [HANDSHAKE] {
            stream.write_all(NOT_TLS).await?;
            stream.shutdown().await?;
            return Err(io::Error::other("the client does not speak TLS"));
        }
        TlsAcceptor::from(self.config().await).accept(stream).await
    }

    /// What the files hold. Only one connection looks at them, once in a while: a flood of connections reads
    /// them no more often.
    async fn config(&self) -> Arc<ServerConfig> {
        let former = {
            let mut in_use = lock(&self.in_use);
            let config = Arc::clone(&in_use.1);
            if in_use.0.elapsed() < LOOK_AGAIN_AFTER {
                return config;
            }
            in_use.0 = Instant::now();
            config
        };
        let server = Arc::clone(&self.server);
        // On a thread of its own: the files may be on a file system that hangs.
        match tokio::task::spawn_blocking(move || server.current()).await {
            Ok(Ok(config)) => {
                lock(&self.in_use).1 = Arc::clone(&config);
                config
            }
            _ => former,
        }
    }
}
