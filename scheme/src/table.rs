//! Values by small numbers, like a kernel's descriptor table.

/// As long as the largest number that was ever in use, so it is for numbers that are reused.
#[derive(Clone, Debug)]
pub(crate) struct Table<T>(Vec<Option<T>>);

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Table<T> {
    /// The value at a number.
    pub(crate) fn get(&self, at: u32) -> Option<&T> {
        self.0.get(at as usize)?.as_ref()
    }

    /// The value at a number, mutably.
    pub(crate) fn get_mut(&mut self, at: u32) -> Option<&mut T> {
        self.0.get_mut(at as usize)?.as_mut()
    }

    /// Puts a value at a number, in place of what was there.
    pub(crate) fn insert(&mut self, at: u32, value: T) {
        let at = at as usize;
        if at >= self.0.len() {
            self.0.resize_with(at + 1, || None);
        }
        self.0[at] = Some(value);
    }

    /// Puts a value at the lowest free number, and returns that.
    pub(crate) fn add(&mut self, value: T) -> u32 {
        let free = self.0.iter().position(Option::is_none);
        let at = free.unwrap_or(self.0.len()) as u32;
        self.insert(at, value);
        at
    }

    /// Takes the value at a number.
    pub(crate) fn remove(&mut self, at: u32) -> Option<T> {
        self.0.get_mut(at as usize)?.take()
    }

    /// Every value, by number.
    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        self.0.iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_free_number_is_used_again() {
        let mut table = Table::default();
        assert_eq!([table.add('a'), table.add('b'), table.add('c')], [0, 1, 2]);
        assert_eq!(table.remove(1), Some('b'));
        assert_eq!(table.remove(1), None);
        assert_eq!((table.add('d'), table.add('e')), (1, 3));
        table.insert(6, 'f');
        assert_eq!(
            (table.get(5), table.get(6), table.get(7)),
            (None, Some(&'f'), None)
        );
        assert!(table.values().eq(&['a', 'd', 'c', 'e', 'f']));
    }
}
