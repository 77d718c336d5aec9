//! Compression of segments.

/// Compression of segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// No compression.
    #[default]
    None,
    /// zstd frames.
    Zstd {
        /// 1 to 22; 3 is zstd's own default.
        level: i32,
    },
    /// gzip members.
    Gzip {
        /// 0 to 9; 6 is gzip's own default.
        level: u32,
    },
}
