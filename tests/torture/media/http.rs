//! The `http` sink, to a service that keeps what it receives and sometimes loses an answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use async_trait::async_trait;
use tokio::net::TcpListener;

use crate::common::daemon::Home;
use crate::common::load::number;
use crate::common::skip::or_skip;
use crate::common::web::{Reply, Seen, Web};
use crate::torture::kills::killed;
use crate::torture::oracle::{Failure, Landed, Oracle};
use crate::torture::outage::outages;

const WELL: u8 = 0;
const REFUSES: u8 = 1;
const HANGS: u8 = 2;

struct Service {
    web: Web,
    /// Its earlier instances, at the same address.
    former: Vec<Web>,
    health: Arc<AtomicU8>,
}

/// The service's behaviour, with occasional failures.
fn script(health: &Arc<AtomicU8>) -> impl Fn(&Seen) -> Reply + Send + Sync + 'static {
    let health = Arc::clone(health);
    move |_| match (health.load(Ordering::SeqCst), fastrand::u32(0..40)) {
        (REFUSES, _) | (WELL, 0) => Reply::status(503),
        (HANGS, _) => Reply::Hang,
        (_, 1) => Reply::KeepAndHangUp,
        (_, 2) => Reply::KeepAndTear,
        _ => Reply::Keep,
    }
}

impl Service {
    async fn start() -> Service {
        let health = Arc::new(AtomicU8::new(WELL));
        let web = Web::start(script(&health)).await;
        Service { web, former: Vec::new(), health }
    }

    /// Starts it again at the address where it was stopped.
    async fn start_again(&mut self) {
        let listener = TcpListener::bind(self.web.address).await.unwrap();
        let web = Web::on(listener, script(&self.health));
        self.former.push(std::mem::replace(&mut self.web, web));
    }
}

#[async_trait]
impl Oracle for Service {
    fn name(&self) -> &'static str {
        "http"
    }

    fn sink(&self, _stream: &str) -> String {
        let url = self.web.url();
        format!("{{ type = \"http\", url = \"{url}\", max_records = 16, timeout = \"1s\" }}")
    }

    async fn landed(&mut self, _home: &Home, _stream: &str) -> Landed {
        let kept =
            self.former.iter().chain([&self.web]).flat_map(Web::seen).filter(|seen| seen.kept);
        let records = kept.flat_map(|seen| seen.records);
        let records = records.map(|line| (line["offset"].as_u64().unwrap(), number(&line)));
        Landed { records: records.collect(), torn: 0 }
    }

    fn may_repeat(&self) -> bool {
        true
    }

    async fn break_down(&mut self, how: Failure, on: bool) -> bool {
        match how {
            Failure::Gone if on => self.web.stop().await,
            Failure::Gone => self.start_again().await,
            _ if !on => self.health.store(WELL, Ordering::SeqCst),
            Failure::Refuses => self.health.store(REFUSES, Ordering::SeqCst),
            Failure::Hangs => self.health.store(HANGS, Ordering::SeqCst),
        }
        true
    }
}

#[tokio::test]
async fn kills() {
    or_skip!(killed(Service::start().await).await);
}

#[tokio::test]
async fn a_service_that_fails_in_each_way() {
    or_skip!(outages(Service::start().await).await);
}
