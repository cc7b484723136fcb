//! An event whose document lies elsewhere becomes one that carries it.

use super::dead_letter::{Refusal, Stage};
use crate::article::{ArticleEvent, Claim, RawDocument};
use crate::claims::{Claims, Fetched};
use tokio::sync::OwnedSemaphorePermit;

/// Where an event's document lies, if it does not carry it.
pub(super) fn of(event: &ArticleEvent) -> Option<&Claim> {
    event.raw.as_ref()?.claim.as_ref()
}

/// Fetches the document, however long its store is away. The permit is the document's room: it is to be held until
/// the article is done.
pub(super) async fn redeem(
    event: ArticleEvent,
    claims: &Claims,
) -> Result<(ArticleEvent, Option<OwnedSemaphorePermit>), Refusal> {
    let Some(claim) = of(&event) else { return Ok((event, None)) };
    let fetched = claims.fetch(claim).await;
    let Fetched { bytes, room } = fetched.map_err(|e| Refusal::new(Stage::Fetch, e.reason(), e))?;
    let raw = event.raw.map(|raw| RawDocument { bytes, claim: None, ..raw });
    Ok((ArticleEvent { raw, ..event }, Some(room)))
}
