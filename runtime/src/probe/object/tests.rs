//! What kernels demand of the objects that this one does not.

use std::ops::Range;

use object::{ObjectSection as _, SymbolKind};

use super::*;

/// Of an instruction's first byte: where its class is, and where the operation of a jump is.
const CLASS: u8 = 0x07;
const OPERATION: u8 = 0xf0;
/// Classes of jumps, by 64 bits and by 32.
const JUMPS: [u8; 2] = [0x05, 0x06];
const ALWAYS: u8 = 0x00;
const CALL: u8 = 0x80;
const EXIT: u8 = 0x90;
/// Puts 64 bits into a register, and takes the place of two instructions.
const WIDE: u8 = 0x18;

type Code = [[u8; 8]];

/// Where a function goes from there, and whether by a jump.
fn next(code: &Code, at: usize) -> Vec<(usize, bool)> {
    let [operation, _, low, high, ..] = code[at];
    let target = (at + 1).wrapping_add_signed(i16::from_le_bytes([low, high]).into());
    if operation == WIDE {
        return vec![(at + 2, false)];
    }
    if !JUMPS.contains(&(operation & CLASS)) {
        return vec![(at + 1, false)];
    }
    match operation & OPERATION {
        EXIT => vec![],
        CALL => vec![(at + 1, false)],
        ALWAYS => vec![(target, true)],
        _ => vec![(at + 1, true), (target, true)],
    }
}

/// Instructions that are no jump and lead back to where the function came from.
fn loops_without_a_jump(code: &Code) -> Vec<usize> {
    let mut found = Vec::new();
    let mut seen = vec![false; code.len()];
    let mut on_path = seen.clone();
    let mut path = vec![(0, next(code, 0))];
    (seen[0], on_path[0]) = (true, true);
    while let Some((at, rest)) = path.last_mut() {
        let at = *at;
        if rest.is_empty() {
            on_path[at] = false;
            path.pop();
            continue;
        }
        let (to, jumps) = rest.remove(0);
        if on_path[to] && !jumps {
            found.push(at);
        }
        if !seen[to] {
            (seen[to], on_path[to]) = (true, true);
            path.push((to, next(code, to)));
        }
    }
    found
}

/// The functions of an object, by name.
fn functions(bytes: &[u8]) -> Vec<(String, Vec<[u8; 8]>)> {
    let file = object::File::parse(bytes).expect("an object");
    let code = |symbol: &object::Symbol<'_, '_>| {
        let section = file.section_by_index(symbol.section_index()?).ok()?;
        let start = usize::try_from(symbol.address()).ok()?;
        let place: Range<usize> = start..start + usize::try_from(symbol.size()).ok()?;
        Some(section.data().ok()?[place].as_chunks().0.to_vec())
    };
    file.symbols()
        .filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() > 0)
        .map(|symbol| (symbol.name().expect("a name").to_owned(), code(&symbol).expect("code")))
        .collect()
}

#[test]
fn a_loop_is_entered_again_by_a_jump() {
    // Before Linux 6.8 the verifier knows no other loops, and says `back-edge`.
    for (object, bytes) in embedded::OBJECTS {
        let functions = functions(bytes);
        assert!(!functions.is_empty(), "{object}");
        for (name, code) in functions {
            let found = loops_without_a_jump(&code);
            assert!(found.is_empty(), "{object}: {name}: instructions {found:?} of {}", code.len());
        }
    }
}

#[test]
fn the_two_shapes_of_a_loop_are_told_apart() {
    let (skip, add, exit) =
        ([0x05, 0, 1, 0, 0, 0, 0, 0], [0x07, 1, 0, 0, 1, 0, 0, 0], [EXIT | 5, 0, 0, 0, 0, 0, 0, 0]);
    let repeat = |offset: i16| {
        let [low, high] = offset.to_le_bytes();
        [0xa5, 1, low, high, 9, 0, 0, 0]
    };
    assert_eq!(loops_without_a_jump(&[add, repeat(-2), exit]), [0; 0]);
    // The test stands behind what is repeated, and both before the first turn's way in.
    assert_eq!(loops_without_a_jump(&[skip, add, repeat(-2), exit]), [1]);
}
