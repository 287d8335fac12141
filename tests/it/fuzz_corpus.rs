//! The fuzz targets on inputs that are known, and on some that are made of them. `make fuzz` looks for more.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use token_broker::fuzzing::TARGETS;

use crate::splitmix;

/// What may be kept of what was found, in all. Bytes.
const MAX_CORPUS: u64 = 200 * 1024;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = fuzz().join("corpus").join(target);
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

/// As long as they are in the corpora, inputs that once crashed stay harmless.
#[test]
fn every_known_input_is_harmless() {
    for (name, target) in TARGETS {
        let inputs = corpus(name);
        assert!(inputs.len() >= 3, "{name} has a corpus");
        for input in &inputs {
            target(input);
        }
    }
}

#[test]
fn the_targets_are_the_same_everywhere() {
    let names: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let folder = |path: &str| -> BTreeSet<String> {
        let entries = std::fs::read_dir(fuzz().join(path)).unwrap();
        let stem = |path: PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
        entries.map(|entry| stem(entry.unwrap().path())).collect()
    };
    assert_eq!(folder("fuzz_targets"), names);
    assert_eq!(folder("corpus"), names);
    let manifest: toml::Table = std::fs::read_to_string(fuzz().join("Cargo.toml")).unwrap().parse().unwrap();
    let bins = manifest["bin"].as_array().unwrap().iter();
    assert_eq!(bins.map(|bin| bin["name"].as_str().unwrap().to_owned()).collect::<BTreeSet<_>>(), names);
}

#[test]
fn the_corpora_stay_small() {
    let mut bytes = 0;
    for (name, _) in TARGETS {
        bytes += corpus(name).iter().map(|input| input.len() as u64).sum::<u64>();
    }
    assert!(bytes <= MAX_CORPUS, "{bytes} bytes: `make fuzz` minimises");
}

#[test]
fn inputs_made_of_the_known_ones_are_harmless() {
    for (name, target) in TARGETS {
        run(name, *target, 300, 1);
    }
}

/// `make mutate TARGET=… RUNS=… SEED=…`: the same as long as one likes, where libFuzzer does not run.
#[test]
#[ignore = "takes minutes; `make mutate` runs it"]
fn many_inputs_are_harmless() {
    let variable = |name: &str| {
        std::env::var_os(name).and_then(|text| text.into_string().ok()).filter(|text| !text.is_empty())
    };
    let number = |name: &str, default: u64| variable(name).map_or(default, |text| text.parse().unwrap());
    let (runs, seed) = (number("RUNS", 1_000_000), number("SEED", 1));
    let wanted = variable("TARGET");
    for (name, target) in
        TARGETS.iter().filter(|(name, _)| wanted.as_deref().is_none_or(|only| only == *name))
    {
        run(name, *target, runs, seed);
        writeln!(std::io::stderr(), "{name}: {runs} inputs of seed {seed}, all harmless").unwrap();
    }
}

fn run(name: &str, target: fn(&[u8]), runs: u64, seed: u64) {
    let mut mutator = Mutator::new(corpus(name), seed);
    for number in 0..runs {
        let input = mutator.next();
        let calm = std::panic::catch_unwind(|| target(&input));
        assert!(calm.is_ok(), "{name}, seed {seed}, number {number}: {:?}", String::from_utf8_lossy(&input));
    }
}

/// Makes inputs of a corpus: a few changes each, with words of the corpus among what is put in.
struct Mutator {
    corpus: Vec<Vec<u8>>,
    words: Vec<Vec<u8>>,
    state: u64,
}

/// Longer ones are cut: most mistakes are small.
const MAX_INPUT: usize = 4096;

impl Mutator {
    fn new(corpus: Vec<Vec<u8>>, seed: u64) -> Self {
        let word = |byte: &u8| !byte.is_ascii_alphanumeric() && *byte != b'_';
        let mut words: Vec<Vec<u8>> = corpus
            .iter()
            .flat_map(|input| input.split(word))
            .filter(|w| !w.is_empty())
            .map(<[u8]>::to_vec)
            .collect();
        words.extend(
            [
                "\0",
                "\n",
                "\"",
                "\\",
                "{",
                "}",
                "[",
                "]",
                "=",
                "&",
                "%00",
                "%ff",
                "..",
                "/",
                ":",
                "\u{fffd}",
                "\u{202e}",
                "-1",
                "18446744073709551616",
                "1e999",
                "null",
                "true",
                "\\ud800",
                "\r\n\r\n",
            ]
            .map(|w| w.as_bytes().to_vec()),
        );
        words.sort();
        words.dedup();
        Self { corpus, words, state: seed }
    }

    fn random(&mut self) -> u64 {
        splitmix::next(&mut self.state)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.random() % bound.max(1) as u64).unwrap()
    }

    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let (a, b) = (self.below(length + 1), self.below(length + 1));
        a.min(b)..a.max(b)
    }

    fn next(&mut self) -> Vec<u8> {
        let chosen = self.below(self.corpus.len());
        let mut input = self.corpus[chosen].clone();
        for _ in 0..=self.below(6) {
            self.change(&mut input);
        }
        input.truncate(MAX_INPUT);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let at = self.below(input.len() + 1);
        match self.below(8) {
            0 if at < input.len() => input[at] ^= 1 << self.below(8),
            1 if at < input.len() => input[at] = self.random().to_le_bytes()[0],
            2 => {
                let bytes = self.random().to_le_bytes();
                let length = 1 + self.below(8);
                input.splice(at..at, bytes[..length].iter().copied());
            }
            3 => drop(input.drain(self.range(input.len()))),
            4 => {
                let copied = input[self.range(input.len())].to_vec();
                input.splice(at..at, copied);
            }
            5 => input.truncate(at),
            6 => {
                let chosen = self.below(self.corpus.len());
                let other = self.corpus[chosen].clone();
                let part = other[self.range(other.len())].to_vec();
                input.splice(at..at, part);
            }
            _ => {
                let chosen = self.below(self.words.len());
                let word = self.words[chosen].clone();
                input.splice(at..at, word);
            }
        }
    }
}
