//! A plain consumer on lapin, as its own example is: a loop over its stream of deliveries, each of which is
//! acknowledged. `make bench-amqp` measures it.
//!
//! rillway-bench-lapin PORT QUEUE MESSAGES PREFETCH ACK_EVERY SECONDS
//!
//! Prints `run`, the messages read, and the nanoseconds from the first one to the last.

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Connection, ConnectionProperties};

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [port, queue, messages, prefetch, ack_every, seconds] = &arguments[..] else {
        return Err("PORT QUEUE MESSAGES PREFETCH ACK_EVERY SECONDS".into());
    };
    let (messages, ack_every): (u64, u64) = (messages.parse()?, ack_every.parse()?);
    let limit = Duration::from_secs(seconds.parse()?);
    let uri = format!("amqp://guest:guest@localhost:{port}/%2f");
    let connection = Connection::connect(&uri, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.basic_qos(prefetch.parse()?, BasicQosOptions::default()).await?;
    let mut arguments = FieldTable::default();
    arguments.insert("x-stream-offset".into(), AMQPValue::LongString("first".into()));
    let (queue, tag) = (queue.as_str().into(), "bench".into());
    let mut consumer =
        channel.basic_consume(queue, tag, BasicConsumeOptions::default(), arguments).await?;
    let (mut read, mut began) = (0, Instant::now());
    while read < messages {
        let Some(delivery) = consumer.next().await else {
            return Err(format!("it ended after {read} messages").into());
        };
        let delivery = delivery?;
        std::hint::black_box(&delivery.data);
        if read == 0 {
            began = Instant::now();
        }
        read += 1;
        if read % ack_every == 0 {
            delivery.ack(BasicAckOptions { multiple: ack_every > 1 }).await?;
        }
        if read % 1024 == 0 && began.elapsed() > limit {
            break;
        }
    }
    println!("run {read} {}", began.elapsed().as_nanos());
    Ok(())
}
