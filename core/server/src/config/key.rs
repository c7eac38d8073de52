//! The list of keys, declared once: the struct, the default, the text of the reference file.

use super::{source::Source, value::Setting};

/// A table of the configuration.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Section {
    /// `limits`, or `tls.*` where the last part is a name that the operator chooses.
    pub(crate) path: &'static str,
    /// What it is about.
    pub(crate) about: &'static str,
    /// Its keys.
    pub(crate) keys: &'static [Key],
}

/// One key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    /// Sentences for the reference file.
    pub(crate) about: &'static str,
    /// The default as it stands in a file.
    pub(crate) default: fn() -> String,
    /// What a file may hold, as JSON Schema.
    pub(crate) schema: fn() -> serde_json::Value,
}

/// A section that can be read from sources.
pub(crate) trait Configured: Sized {
    const SECTION: Section;
    /// Reads the section at `path`; every value that does not fit is noted in `source`.
    fn read(source: &mut Source, path: &str) -> Self;
}

/// Declares the struct of a section, its keys and how they are read. Defaults are written as in
/// an environment variable.
macro_rules! section {
    ($(#[doc = $about:literal])* $name:ident at $path:literal {
        $( $(#[doc = $doc:literal])* $field:ident: $kind:ty = $default:literal, )*
    }) => {
        $(#[doc = $about])*
        #[derive(Debug, Clone, PartialEq)]
        pub(crate) struct $name { $( $(#[doc = $doc])* pub(crate) $field: $kind, )* }

        impl $crate::config::key::Configured for $name {
            const SECTION: $crate::config::key::Section = $crate::config::key::Section {
                path: $path,
                about: concat!($($about, "\n"),*),
                keys: &[ $( $crate::config::key::Key {
                    name: stringify!($field),
                    about: concat!($($doc, "\n"),*),
                    default: || $crate::config::key::default::<$kind>($default).show(),
                    schema: <$kind as $crate::config::value::Setting>::schema,
                }, )* ],
            };

            fn read(source: &mut $crate::config::source::Source, path: &str) -> Self {
                Self { $( $field: source.take(path, stringify!($field), $default), )* }
            }
        }
    };
}
pub(crate) use section;

/// The value of a default's text.
pub(crate) fn default<T: Setting>(text: &str) -> T {
    T::read(&super::value::Raw::Text(text.to_owned()))
        .expect("a default that is declared in this program has the type of its key")
}
