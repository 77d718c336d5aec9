//! Words of a peer, as they may be shown: on one line, not too many, and without the secrets that were sent to it,
//! which some peers repeat.

use super::Secret;

/// Most characters of a quotation.
pub const QUOTE_CHARS_MAX: usize = 200;

/// Shorter secrets are not removed: they would match everywhere.
const SECRET_CHARS_MIN: usize = 4;

/// Secrets that no quotation shows.
#[derive(Clone, Default)]
pub struct Hidden(Vec<String>);

impl Hidden {
    /// These, and their forms in JSON.
    pub fn new(secrets: impl IntoIterator<Item = String>) -> Hidden {
        let mut all: Vec<String> = secrets.into_iter().collect();
        // Some services write `/` as `\/` there.
        let escaped: Vec<String> = all
            .iter()
            .map(|secret| secret.replace('\\', "\\\\").replace('"', "\\\""))
            .flat_map(|json| [json.replace('/', "\\/"), json])
            .collect();
        all.extend(escaped);
        all.retain(|secret| secret.len() >= SECRET_CHARS_MIN);
        // The longest first: a part that is replaced before would break it up.
        all.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        all.dedup();
        Hidden(all)
    }

    /// Forms of the value of a header in which a peer may repeat it: of `Bearer TOKEN`, the token alone too.
    pub fn of_header(value: &Secret) -> impl Iterator<Item = String> + use<> {
        let value = value.reveal();
        let token = value.split_once(' ').map(|(_, token)| token.to_owned());
        std::iter::once(value.to_owned()).chain(token)
    }

    /// The beginning of these words, as they may be shown.
    pub fn quote(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.0 {
            text = text.replace(secret.as_str(), "***");
        }
        let text = text.trim();
        let mut chars = text.chars().map(|c| if c.is_control() { ' ' } else { c });
        let mut short: String = chars.by_ref().take(QUOTE_CHARS_MAX).collect();
        if chars.next().is_some() {
            short.push('…');
        }
        short.trim().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quotation_is_short_plain_and_without_secrets() {
        let none = Hidden::default();
        assert_eq!(none.quote("\n \r\n"), "");
        assert_eq!(none.quote(" a\x1b[31m\nb\u{fffd}\n"), "a [31m b\u{fffd}");
        let secrets = Hidden::of_header(&Secret::new("Bearer hunter2/x"));
        let hidden = Hidden::new(secrets.chain(["".to_owned(), "a".to_owned()]));
        assert_eq!(hidden.quote("a bad token hunter2/x!"), "a bad token ***!");
        assert_eq!(hidden.quote("{\"sent\":\"Bearer hunter2\\/x\"}"), "{\"sent\":\"***\"}");
        // Also where the quotation is cut off within it.
        let long = format!("{}hunter2/x", "x".repeat(QUOTE_CHARS_MAX - 4));
        assert_eq!(hidden.quote(&long), format!("{}***", "x".repeat(QUOTE_CHARS_MAX - 4)));
        assert_eq!(none.quote(&"x".repeat(5_000)).chars().count(), QUOTE_CHARS_MAX + 1);
    }
}
