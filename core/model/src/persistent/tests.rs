use std::{collections::HashMap, hash::Hasher};

use proptest::{collection::vec, prelude::*};

use super::*;

/// Gives every key one of few hashes, so that branches run deep and end in collisions.
#[derive(Default, Clone)]
struct FewHashes;

struct Few(u64);

impl BuildHasher for FewHashes {
    type Hasher = Few;

    fn build_hasher(&self) -> Few {
        Few(0)
    }
}

impl Hasher for Few {
    fn finish(&self) -> u64 {
        match self.0 % 7 {
            0 | 1 => 0,
            2 => 1 << 63,
            3 => 1 << 59,
            4 => u64::MAX,
            5 => 32,
            _ => self.0,
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.wrapping_mul(31).wrapping_add(u64::from(*byte));
        }
    }
}

fn agrees<S: BuildHasher>(map: &PersistentMap<u16, u32, S>, model: &HashMap<u16, u32>) -> bool {
    let listed: HashMap<u16, u32> = map.iter().map(|(key, value)| (*key, *value)).collect();
    map.len() == model.len()
        && map.iter().count() == model.len()
        && listed == *model
        && (0..200).all(|key| map.get(&key) == model.get(&key))
}

fn replay<S: BuildHasher + Default + Clone>(steps: &[(u16, u8)]) -> Result<(), TestCaseError> {
    let mut map: PersistentMap<u16, u32, S> = PersistentMap::new();
    let mut model = HashMap::new();
    let mut snapshots = Vec::new();
    for (turn, (key, what)) in (0_u32..).zip(steps) {
        match what {
            0..5 => prop_assert_eq!(map.insert(*key, turn), model.insert(*key, turn)),
            5..8 => prop_assert_eq!(map.remove(key), model.remove(key)),
            8 => {
                let (value, expected) = (map.get_mut(key), model.get_mut(key));
                prop_assert_eq!(&value, &expected);
                if let (Some(value), Some(expected)) = (value, expected) {
                    *value += 1;
                    *expected += 1;
                }
            }
            _ => snapshots.push((map.clone(), model.clone())),
        }
    }
    snapshots.push((map, model));
    for (map, model) in &snapshots {
        prop_assert!(agrees(map, model));
    }
    Ok(())
}

proptest! {
    #![proptest_config(crate::test_config(200))]

    #[test]
    fn the_map_and_its_snapshots_agree_with_a_plain_map(
        steps in vec((0..200_u16, 0..10_u8), 0..300),
    ) {
        replay::<RandomState>(&steps)?;
        replay::<FewHashes>(&steps)?;
    }
}

#[test]
fn a_map_that_was_emptied_is_like_a_new_one() {
    let mut map: PersistentMap<String, usize> =
        (0..1000).map(|number| (number.to_string(), number)).collect();
    for number in 0..1000 {
        assert_eq!(map.remove(number.to_string().as_str()), Some(number));
    }
    assert!(map.is_empty() && map.root.is_none() && map.iter().next().is_none());
}
