//! Articles onto the `articles` topic, for `ingest` and `demo`.

use super::input;
use litflow::ErrorClass;
use litflow::article::{ArticleEvent, Articles, Place};
use litflow::bus::publisher::{PublishError, Published, Publisher, Refused};
use std::fmt::Display;

/// Publishes all articles. Each that is left out, because it cannot be read or because it is refused here or by
/// the broker, is told with its place and the reason. `event_of` makes the event to be published of the one that was
/// read; `progress` is called with the number published so far.
///
/// Returns what was published, and how many records were left out.
///
/// # Errors
/// Those that none of the articles after it would survive: a missing topic, no authorisation, no broker; those of
/// `event_of`.
pub fn publish(
    mut articles: Articles,
    mut publisher: Publisher,
    mut event_of: impl FnMut(ArticleEvent) -> anyhow::Result<ArticleEvent>,
    mut progress: impl FnMut(u64),
) -> anyhow::Result<(Published, u64)> {
    let (mut count, mut left_out) = (0, 0);
    let mut leave_out = |what: String| {
        left_out += 1;
        input::tell_left_out(&what);
    };
    let named = |place: &Place, id: &str, reason: &dyn Display| format!("{place}, record {id}: {reason}");
    while let Some(article) = articles.next() {
        match article {
            Err(error) => leave_out(error.to_string()),
            Ok(event) => {
                let event = event_of(event)?;
                match publisher.article_from(articles.place(), &event) {
                    Ok(()) => count += 1,
                    Err(error @ PublishError::Full { .. }) => {
                        leave_out(named(articles.place(), &format!("{} and what follows", event.id), &error));
                        break;
                    }
                    Err(error) if error.class() == ErrorClass::Poison => {
                        leave_out(named(articles.place(), &event.id, &error));
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
        for Refused { place, key, error, .. } in publisher.refused() {
            leave_out(named(&place, &key, &error));
        }
        progress(count);
    }
    publisher.flush()?;
    for Refused { place, key, error, .. } in publisher.refused() {
        leave_out(named(&place, &key, &error));
    }
    Ok((publisher.finish()?, left_out))
}
