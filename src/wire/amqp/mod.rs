//! AMQP 1.0 messages.
