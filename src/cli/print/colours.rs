//! Colours of a terminal.

/// Whether text is coloured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Colours(pub(super) bool);

/// What a piece of text is.
#[derive(Clone, Copy)]
pub(super) enum Colour {
    /// The line that begins a message.
    Head,
    /// The name of a value.
    Name,
    /// What the message itself does not say.
    Note,
}

impl Colours {
    /// Appends the text, in its colour.
    pub(super) fn paint(self, colour: Colour, text: &str, out: &mut Vec<u8>) {
        let begin = match colour {
            Colour::Head => "\x1b[1;36m",
            Colour::Name => "\x1b[34m",
            Colour::Note => "\x1b[2m",
        };
        if !self.0 {
            return out.extend_from_slice(text.as_bytes());
        }
        for piece in [begin, text, "\x1b[0m"] {
            out.extend_from_slice(piece.as_bytes());
        }
    }
}

/// False if the user wants no colours (<https://no-color.org>), or the terminal has none.
pub(super) fn are_wanted() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !refused && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}
