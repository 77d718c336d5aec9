//! A subscription: the events of a feed, and a look ahead at a change behind waiting chunks.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::{Budget, Event, Feed, Link, SourceError};
use crate::flow::resume::Start;

/// A delivering subscription with its link. Dropping it ends the credit.
pub struct Subscription {
    link: Arc<dyn Link>,
    feed: Box<dyn Feed>,
    /// Events that were taken from the feed before they were wanted. Chunks hold their permits, so
    /// the budget limits them.
    ahead: VecDeque<Event>,
    /// The feed has ended, behind what is ahead.
    has_ended: bool,
}

/// Begins to deliver from `start` on, under the budget.
///
/// # Errors
/// As [`Link::feed`].
pub async fn begin(
    link: &Arc<dyn Link>,
    start: Start,
    budget: &Arc<Budget>,
) -> Result<Subscription, SourceError> {
    let feed = link.feed(start, budget).await?;
    Ok(Subscription { link: Arc::clone(link), feed, ahead: VecDeque::new(), has_ended: false })
}

impl Subscription {
    /// The next event; `None` when the link has ended (it has the reason). Cancel-safe.
    pub async fn next(&mut self) -> Option<Event> {
        poll_fn(|context| self.poll_next(context)).await
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Event>> {
        match self.ahead.pop_front() {
            Some(event) => Poll::Ready(Some(event)),
            None if self.has_ended => Poll::Ready(None),
            None => self.feed.poll_next(context),
        }
    }

    /// An event that has already arrived.
    pub fn try_next(&mut self) -> Option<Event> {
        self.ahead.pop_front().or_else(|| self.feed.try_next())
    }

    /// Number of events that have already arrived, or less.
    pub fn waiting(&self) -> usize {
        self.ahead.len() + self.feed.waiting()
    }

    /// True if an event has already arrived.
    pub fn has_next(&mut self) -> bool {
        if self.ahead.is_empty() {
            self.ahead.extend(self.feed.try_next());
        }
        !self.ahead.is_empty()
    }

    /// The next event, where the broker decides which consumer is active: a change, or the end of
    /// the subscription, is returned as soon as it has arrived, and chunks that wait before it are
    /// dropped. Chunks themselves are returned only with `takes_chunks`. `None` when the link has
    /// ended. Cancel-safe.
    pub async fn change(&mut self, takes_chunks: bool) -> Option<Event> {
        poll_fn(|context| match self.poll_change(context) {
            Poll::Pending if takes_chunks => match self.ahead.pop_front() {
                Some(event) => Poll::Ready(Some(event)),
                None => Poll::Pending,
            },
            change => change,
        })
        .await
    }

    /// The end of the subscription, while a change is being completed. Everything else waits until
    /// that is answered, and holds its memory until then. `None` when the link has ended.
    /// Cancel-safe.
    pub async fn end(&mut self) -> Option<Event> {
        poll_fn(|context| self.look_ahead(context, |event| matches!(event, Event::Unavailable(_))))
            .await
    }

    fn poll_change(&mut self, context: &mut Context<'_>) -> Poll<Option<Event>> {
        self.look_ahead(context, |event| !matches!(event, Event::Chunk(_)))
    }

    /// Takes events from the feed until one of them is wanted. That is returned, and the ones
    /// before it are dropped.
    fn look_ahead(
        &mut self,
        context: &mut Context<'_>,
        is_wanted: impl Fn(&Event) -> bool,
    ) -> Poll<Option<Event>> {
        // Chunks are never wanted, and there may be many: others stand behind them at the end.
        let found = self.ahead.iter().rposition(|event| !matches!(event, Event::Chunk(_)));
        let others = found.map_or(0, |at| at + 1);
        if let Some(at) = self.ahead.iter().take(others).position(&is_wanted) {
            self.ahead.drain(..at);
            return Poll::Ready(self.ahead.pop_front());
        }
        while !self.has_ended {
            match self.feed.poll_next(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => self.has_ended = true,
                Poll::Ready(Some(event)) if is_wanted(&event) => {
                    self.ahead.clear();
                    return Poll::Ready(Some(event));
                }
                Poll::Ready(Some(event)) => self.ahead.push_back(event),
            }
        }
        self.ahead.clear();
        Poll::Ready(None)
    }

    /// The link of the subscription.
    pub fn link(&self) -> &Arc<dyn Link> {
        &self.link
    }
}
