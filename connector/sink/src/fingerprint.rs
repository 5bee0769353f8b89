//! A short name for everything that decides the bytes of a plan besides its offsets.

use millpond_connector::topic::Transform;
use xxhash_rust::xxh3::Xxh3;

/// Raised whenever the planner would make other bytes of the same input.
const PLANNER_VERSION: u64 = 2;

/// What goes into the fingerprint.
#[derive(Debug, Clone, Copy)]
pub struct Ingredients<'a> {
    /// Pipeline name.
    pub pipeline: &'a str,
    /// Settings of the store that decide names or bytes of what it writes.
    pub store: &'a [String],
    /// The transform chain as configured.
    pub transforms: &'a [Transform],
    /// Digests of the SmartModules, where they are known.
    pub digests: &'a [String],
}

/// The fingerprint: 32 hexadecimal digits.
#[must_use]
pub fn fingerprint(of: Ingredients<'_>) -> String {
    let mut hash = Xxh3::new();
    // Lengths before texts, so that no two lists read the same.
    let mut text = |text: &str| {
        hash.update(&(text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    };
    text(&PLANNER_VERSION.to_string());
    text(of.pipeline);
    text(&of.store.len().to_string());
    of.store.iter().for_each(|setting| text(setting));
    for transform in of.transforms {
        text("uses");
        text(&transform.uses);
        for (name, value) in &transform.with {
            text(name);
            text(value);
        }
    }
    for digest in of.digests {
        text("digest");
        text(digest);
    }
    format!("{:032x}", hash.digest128())
}

/// Digests of SmartModules that are files: the same path may hold another module tomorrow. One
/// that cannot be read is left to the topic, which says so.
#[must_use]
pub fn module_digests(transforms: &[Transform]) -> Vec<String> {
    let digest = |transform: &Transform| {
        let bytes = std::fs::read(&transform.uses).ok()?;
        Some(format!("{:032x}", xxhash_rust::xxh3::xxh3_128(&bytes)))
    };
    transforms.iter().filter_map(digest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_ingredient_changes_it() {
        let pack = Transform {
            uses: "millpond/pack@0.1.0".into(),
            with: [("level".to_owned(), "1".to_owned())].into(),
        };
        let mut other = pack.clone();
        other.with.insert("level".into(), "3".into());
        let transforms = [
            vec![],
            vec![pack.clone()],
            vec![other],
            vec![pack.clone(), pack],
        ];
        let mut seen = std::collections::BTreeSet::new();
        for transforms in &transforms {
            for pipeline in ["p", "q"] {
                for digests in [vec![], vec!["a".to_owned()]] {
                    for max_item_bytes in [409_600, 100_000_u32] {
                        seen.insert(fingerprint(Ingredients {
                            pipeline,
                            store: &["pk".into(), "sk".into(), max_item_bytes.to_string()],
                            transforms,
                            digests: &digests,
                        }));
                    }
                }
            }
        }
        assert_eq!(seen.len(), 4 * 2 * 2 * 2);
    }
}
