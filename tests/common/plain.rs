//! Finds what `{:?}` of a Rust type wrote into a text for people: `Some(7)`, `Batch { stream: … }`.

/// The first such form in a text.
pub(crate) fn debug_form(text: &str) -> Option<&str> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    for (at, _) in text.match_indices(['(', '{']) {
        let (before, after) = text.split_at(at);
        let is_struct = after.starts_with('{');
        let before = if is_struct { before.strip_suffix(' ') } else { Some(before) };
        let Some(before) = before else { continue };
        let name = before.rsplit(|c| !is_word(c)).next().unwrap_or_default();
        // A type's name: `Offset`, not `GREATEST` or `pg_sleep`.
        let is_type = name.starts_with(|c: char| c.is_ascii_uppercase())
            && name.contains(|c: char| c.is_ascii_lowercase());
        let field = after[1..].trim_start().split_once(": ").map(|(field, _)| field);
        let has_field = field.is_some_and(|field| !field.is_empty() && field.chars().all(is_word));
        if is_type && (!is_struct || has_field) {
            return Some(&text[before.len() - name.len()..]);
        }
    }
    None
}

/// Every line that this program itself has logged as text is free of such forms.
#[track_caller]
pub(crate) fn assert_plain_log(log: &str) {
    for line in log.lines().filter(|line| line.contains(" rillway::") || line.contains(" rillway:"))
    {
        if let Some(form) = debug_form(line) {
            panic!("the log shows {form:?} in\n{line}");
        }
    }
}

#[test]
fn forms_of_rust_are_told_from_words() {
    for shown in [
        "Some(1027)",
        "at Offset(Offset(1007))",
        "could not write Batch { stream: StreamName(\"s\"), first: Offset(0) }",
        "Err(Timeout { limit: 5s })",
    ] {
        assert!(debug_form(shown).is_some(), "{shown}");
    }
    for plain in [
        "1027 messages (offsets 3 to 5)",
        "set `sink = { type = \"file\" }`",
        "GREATEST(1, 2), pg_sleep(3), numeric(20)",
        "The sink (\"file\") failed; RabbitMQ (4.3) closed the connection",
        "{\"error\": 1}",
    ] {
        assert_eq!(debug_form(plain), None, "{plain}");
    }
}
