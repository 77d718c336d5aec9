//! Bodies of requests, within limits.

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::StatusCode;
use hyper::body::Body;

use super::limits::BODY_TIME_MAX;

/// Why a body cannot be used.
pub(super) type Unread = (StatusCode, String);

/// True if the announced length alone says that the body is too large.
pub(super) fn is_announced_over(body: &impl Body, bytes_max: usize) -> bool {
    usize::try_from(body.size_hint().lower()).map_or(true, |announced| announced > bytes_max)
}

/// The text of a body too large, for the caller.
pub(super) fn too_large(bytes_max: usize) -> Unread {
    (
        StatusCode::PAYLOAD_TOO_LARGE,
        format!("the body is too large: this route accepts at most {bytes_max} bytes"),
    )
}

/// The whole body, within [`BODY_TIME_MAX`].
///
/// # Errors
/// If it is too large, takes too long, or breaks off.
pub(super) async fn read<B>(body: B, bytes_max: usize) -> Result<Bytes, Unread>
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let whole = Limited::new(body, bytes_max).collect();
    match tokio::time::timeout(BODY_TIME_MAX, whole).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large(bytes_max)),
        Ok(Err(_)) => Err((StatusCode::BAD_REQUEST, "the body broke off".to_owned())),
        Err(_) => Err((
            StatusCode::REQUEST_TIMEOUT,
            format!("the body did not arrive within {} s", BODY_TIME_MAX.as_secs()),
        )),
    }
}
