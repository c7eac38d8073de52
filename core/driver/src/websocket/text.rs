//! Text that comes in pieces is checked as it comes (RFC 6455, section 8.1).

/// What is left of a character that a piece has cut.
#[derive(Debug, Default)]
pub(super) struct TextCheck {
    cut: [u8; 4],
    cut_bytes: usize,
}

impl TextCheck {
    /// Looks at the next piece of a text.
    ///
    /// Errors: it is not UTF-8.
    pub(super) fn check(&mut self, mut piece: &[u8]) -> Result<(), ()> {
        while self.cut_bytes > 0 {
            let Some((first, rest)) = piece.split_first() else { return Ok(()) };
            let slot = self.cut.get_mut(self.cut_bytes).ok_or(())?;
            *slot = *first;
            self.cut_bytes = self.cut_bytes.saturating_add(1);
            piece = rest;
            match std::str::from_utf8(self.cut.get(..self.cut_bytes).unwrap_or_default()) {
                Ok(_) => self.cut_bytes = 0,
                Err(error) if error.error_len().is_some() => return Err(()),
                Err(_) => {}
            }
        }
        let Err(error) = std::str::from_utf8(piece) else { return Ok(()) };
        if error.error_len().is_some() {
            return Err(());
        }
        let cut = piece.get(error.valid_up_to()..).unwrap_or_default();
        self.cut.iter_mut().zip(cut).for_each(|(to, from)| *to = *from);
        self.cut_bytes = cut.len();
        Ok(())
    }

    /// The text is over.
    ///
    /// Errors: it ends within a character.
    pub(super) fn end(&mut self) -> Result<(), ()> {
        match std::mem::take(&mut self.cut_bytes) {
            0 => Ok(()),
            _ => Err(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &[u8], step: usize) -> Result<(), ()> {
        let mut check = TextCheck::default();
        text.chunks(step).try_for_each(|piece| check.check(piece))?;
        check.end()
    }

    #[test]
    fn text_is_text_however_it_is_cut() {
        for step in 1..9 {
            assert_eq!(check("aé€😀 plain".as_bytes(), step), Ok(()), "{step}");
            for wrong in [&b"a\xff"[..], b"\xc3(", b"\xe2\x82", b"\xed\xa0\x80", b"\xf5aaaaaa"] {
                assert_eq!(check(wrong, step), Err(()), "{wrong:?} {step}");
            }
        }
    }
}
