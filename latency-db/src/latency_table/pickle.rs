//! Pickles as data. A pickle is a program; this reader knows the instructions that build numbers,
//! texts, lists, tuples and dictionaries, and refuses all others: nothing is ever looked up by name,
//! called or executed.

use std::collections::BTreeMap;

/// What stands at an index of [`Pickle`].
#[derive(Clone, Debug, PartialEq)]
enum Node {
    None,
    Number(f64),
    Text(String),
    /// A list or a tuple.
    List(Vec<usize>),
    Dict(Vec<(usize, usize)>),
}

/// What a pickle holds. Values refer to each other by index, so that shared and even circular ones
/// need no recursion.
#[derive(Debug)]
pub(super) struct Pickle {
    nodes: Vec<Node>,
    root: usize,
}

/// A value of a pickle.
#[derive(Clone, Copy, Debug)]
pub(super) struct Value<'a> {
    pickle: &'a Pickle,
    index: usize,
}

impl Pickle {
    /// Reads protocols 0 to 5.
    ///
    /// # Errors
    /// What is wrong at which byte; an instruction that names code is one.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        let mut machine =
            Machine { bytes, at: 0, nodes: Vec::new(), stack: Vec::new(), memo: BTreeMap::new() };
        loop {
            let start = machine.at;
            let done = machine.step().map_err(|reason| format!("byte {start} of the pickle: {reason}"))?;
            if let Some(root) = done {
                return Ok(Self { nodes: machine.nodes, root });
            }
        }
    }

    pub(super) fn root(&self) -> Value<'_> {
        Value { pickle: self, index: self.root }
    }
}

impl<'a> Value<'a> {
    fn node(self) -> &'a Node {
        &self.pickle.nodes[self.index]
    }

    fn of(self, index: usize) -> Self {
        Value { index, ..self }
    }

    pub(super) fn number(self) -> Option<f64> {
        if let Node::Number(number) = self.node() { Some(*number) } else { None }
    }

    pub(super) fn text(self) -> Option<&'a str> {
        if let Node::Text(text) = self.node() { Some(text) } else { None }
    }

    pub(super) fn list(self) -> Option<Vec<Self>> {
        let Node::List(items) = self.node() else { return None };
        Some(items.iter().map(|&index| self.of(index)).collect())
    }

    /// Numbers of a list; `None` in the place of Python's `None`.
    pub(super) fn numbers(self) -> Option<Vec<Option<f64>>> {
        self.list()?
            .into_iter()
            .map(|item| match item.node() {
                Node::Number(number) => Some(Some(*number)),
                Node::None => Some(None),
                _ => None,
            })
            .collect()
    }

    /// Entries whose keys are texts, in order; a later entry stands for an earlier one of the same key.
    pub(super) fn entries(self) -> Option<BTreeMap<&'a str, Self>> {
        let Node::Dict(entries) = self.node() else { return None };
        entries.iter().map(|&(key, value)| Some((self.of(key).text()?, self.of(value)))).collect()
    }

    /// What kind of value it is, for messages.
    pub(super) fn kind(self) -> String {
        match self.node() {
            Node::None => "nothing".to_owned(),
            Node::Number(number) => format!("the number {number}"),
            Node::Text(text) => format!("the text \"{}\"", text.chars().take(40).collect::<String>()),
            Node::List(items) => format!("a list of {}", items.len()),
            Node::Dict(entries) => {
                let names: Vec<&str> =
                    entries.iter().filter_map(|&(key, _)| self.of(key).text()).take(12).collect();
                format!("a dictionary of {} with keys {}", entries.len(), names.join(", "))
            }
        }
    }
}

/// What lies on the stack.
#[derive(Clone, Copy)]
enum Slot {
    Mark,
    Value(usize),
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    nodes: Vec<Node>,
    stack: Vec<Slot>,
    memo: BTreeMap<u64, usize>,
}

impl Machine<'_> {
    /// One instruction; the root when it was the last.
    fn step(&mut self) -> Result<Option<usize>, String> {
        match self.byte()? {
            // Protocol and frame lengths only help to read ahead.
            0x80 => drop(self.byte()?),
            0x95 => drop(self.take(8)?),
            b'.' => return self.pop().map(Some),
            b'(' => self.stack.push(Slot::Mark),
            b'0' => drop(self.stack.pop().ok_or("the stack is empty")?),
            b'1' => drop(self.marked()?),
            b'2' => {
                let top = self.top()?;
                self.stack.push(Slot::Value(top));
            }
            b'N' => self.push(Node::None),
            0x88 => self.push(Node::Number(1.0)),
            0x89 => self.push(Node::Number(0.0)),
            b'K' => {
                let number = self.byte()?;
                self.push(Node::Number(f64::from(number)));
            }
            b'M' => {
                let number = self.little(2)?;
                self.push(Node::Number(number as f64));
            }
            b'J' => {
                let number = self.little(4)? as u32;
                self.push(Node::Number(f64::from(number.cast_signed())));
            }
            0x8a => self.long()?,
            b'I' | b'L' | b'F' => {
                let line = self.line()?;
                let plain = line.trim_end_matches('L');
                let number = plain.parse().map_err(|_| format!("expected a number, got `{line}`"))?;
                self.push(Node::Number(number));
            }
            b'G' => {
                let bits = self.take(8)?.iter().fold(0_u64, |bits, &byte| bits << 8 | u64::from(byte));
                self.push(Node::Number(f64::from_bits(bits)));
            }
            0x8c => self.text(1)?,
            b'X' => self.text(4)?,
            0x8d => self.text(8)?,
            b'V' => {
                let line = self.line()?.to_owned();
                self.push(Node::Text(line));
            }
            b']' | b')' => self.push(Node::List(Vec::new())),
            b'l' | b't' => {
                let items = self.marked()?;
                self.push(Node::List(items));
            }
            count @ 0x85..=0x87 => {
                let mut items = Vec::new();
                for _ in 0x85..=count {
                    items.push(self.pop()?);
                }
                items.reverse();
                self.push(Node::List(items));
            }
            b'a' => {
                let item = self.pop()?;
                self.extend(vec![item])?;
            }
            b'e' => {
                let items = self.marked()?;
                self.extend(items)?;
            }
            b'}' => self.push(Node::Dict(Vec::new())),
            b'd' => {
                let items = self.marked()?;
                self.push(Node::Dict(Vec::new()));
                self.enter(&items)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.enter(&[key, value])?;
            }
            b'u' => {
                let items = self.marked()?;
                self.enter(&items)?;
            }
            b'q' => {
                let name = u64::from(self.byte()?);
                self.remember(name)?;
            }
            b'r' => {
                let name = self.little(4)?;
                self.remember(name)?;
            }
            b'p' => {
                let name = self.index()?;
                self.remember(name)?;
            }
            0x94 => self.remember(self.memo.len() as u64)?,
            b'h' => {
                let name = u64::from(self.byte()?);
                self.recall(name)?;
            }
            b'j' => {
                let name = self.little(4)?;
                self.recall(name)?;
            }
            b'g' => {
                let name = self.index()?;
                self.recall(name)?;
            }
            b'c' => {
                let module = self.line()?.to_owned();
                let name = self.line()?;
                return Err(refusal(&format!("{module}.{name}")));
            }
            0x93 => {
                let text = |slot: Result<usize, String>, nodes: &[Node]| match slot.map(|slot| &nodes[slot]) {
                    Ok(Node::Text(text)) => text.clone(),
                    _ => "?".to_owned(),
                };
                let name = text(self.pop(), &self.nodes);
                let module = text(self.pop(), &self.nodes);
                return Err(refusal(&format!("{module}.{name}")));
            }
            other => {
                return Err(format!(
                    "instruction 0x{other:02x} builds something else than numbers, texts, lists and \
                     dictionaries; nothing of it was executed"
                ));
            }
        }
        Ok(None)
    }

    fn take(&mut self, count: usize) -> Result<&[u8], String> {
        let end = self.at.checked_add(count).filter(|&end| end <= self.bytes.len());
        let end = end.ok_or("the file ends in the middle of the pickle (was it copied whole?)")?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, String> {
        self.take(1).map(|taken| taken[0])
    }

    fn little(&mut self, count: usize) -> Result<u64, String> {
        Ok(self.take(count)?.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    /// Up to the end of the line.
    fn line(&mut self) -> Result<&str, String> {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().position(|&byte| byte == b'\n');
        let length = length.ok_or("the file ends in the middle of the pickle (was it copied whole?)")?;
        self.at += length + 1;
        std::str::from_utf8(&rest[..length]).map_err(|_| "a line that is not text".to_owned())
    }

    fn index(&mut self) -> Result<u64, String> {
        let line = self.line()?;
        line.parse().map_err(|_| format!("expected an index, got `{line}`"))
    }

    /// An integer of up to 8 bytes, two's complement.
    fn long(&mut self) -> Result<(), String> {
        let count = usize::from(self.byte()?);
        if count > 8 {
            return Err(format!("an integer of {count} bytes is no latency"));
        }
        let number = self.little(count)?;
        let unused = 64 - 8 * count as u32;
        let signed = if count == 0 { 0 } else { (number << unused).cast_signed() >> unused };
        self.push(Node::Number(signed as f64));
        Ok(())
    }

    fn text(&mut self, width: usize) -> Result<(), String> {
        let length = self.little(width)?;
        let bytes = self.take(usize::try_from(length).unwrap_or(usize::MAX))?;
        let text = std::str::from_utf8(bytes).map_err(|_| "a text that is not UTF-8")?.to_owned();
        self.push(Node::Text(text));
        Ok(())
    }

    fn push(&mut self, node: Node) {
        self.stack.push(Slot::Value(self.nodes.len()));
        self.nodes.push(node);
    }

    fn pop(&mut self) -> Result<usize, String> {
        match self.stack.pop() {
            Some(Slot::Value(index)) => Ok(index),
            _ => Err("a value is missing on the stack".to_owned()),
        }
    }

    fn top(&self) -> Result<usize, String> {
        match self.stack.last() {
            Some(Slot::Value(index)) => Ok(*index),
            _ => Err("a value is missing on the stack".to_owned()),
        }
    }

    /// The values above the last mark.
    fn marked(&mut self) -> Result<Vec<usize>, String> {
        let mark = self.stack.iter().rposition(|slot| matches!(slot, Slot::Mark));
        let items = self.stack.split_off(mark.ok_or("a mark is missing on the stack")?);
        let values =
            items.iter().filter_map(|slot| if let Slot::Value(index) = slot { Some(*index) } else { None });
        Ok(values.collect())
    }

    fn extend(&mut self, items: Vec<usize>) -> Result<(), String> {
        let list = self.top()?;
        match &mut self.nodes[list] {
            Node::List(known) => known.extend(items),
            _ => return Err("something is appended to what is no list".to_owned()),
        }
        Ok(())
    }

    fn enter(&mut self, items: &[usize]) -> Result<(), String> {
        let dict = self.top()?;
        let Node::Dict(known) = &mut self.nodes[dict] else {
            return Err("something is entered into what is no dictionary".to_owned());
        };
        if !items.len().is_multiple_of(2) {
            return Err("a key of a dictionary has no value".to_owned());
        }
        known.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1])));
        Ok(())
    }

    fn remember(&mut self, name: u64) -> Result<(), String> {
        let top = self.top()?;
        self.memo.insert(name, top);
        Ok(())
    }

    fn recall(&mut self, name: u64) -> Result<(), String> {
        let index = self.memo.get(&name).ok_or_else(|| format!("nothing was remembered as {name}"))?;
        self.stack.push(Slot::Value(*index));
        Ok(())
    }
}

fn refusal(name: &str) -> String {
    format!(
        "it asks for the code `{name}`, and tables of numbers need none; nothing of it was executed. If you trust \
         the file, write its numbers anew as plain lists and texts (Python: `pickle.dump({{name: list(map(float, \
         values))}}, file)`)"
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn protocols_0_2_and_4_say_the_same() {
        // pickle.dumps({'a': [1, 2.5, None, True], 'b': (300, -1)}, protocol=…) in Python.
        let zero: &[u8] = b"(dp0\nVa\np1\n(lp2\nI1\naF2.5\naNaI01\nasVb\np3\n(I300\nI-1\ntp4\ns.";
        let two: &[u8] = b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01]q\x02(K\x01G@\x04\x00\x00\x00\x00\x00\x00N\x88eX\x01\x00\x00\x00bq\x03M,\x01J\xff\xff\xff\xff\x86q\x04u.";
        let four: &[u8] = b"\x80\x04\x95+\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x01a\x94]\x94(K\x01G@\x04\x00\x00\x00\x00\x00\x00N\x88e\x8c\x01b\x94M,\x01J\xff\xff\xff\xff\x86\x94u.";
        for bytes in [zero, two, four] {
            let pickle = Pickle::read(bytes).unwrap();
            let entries = pickle.root().entries().unwrap();
            assert_eq!(entries["a"].numbers().unwrap(), [Some(1.0), Some(2.5), None, Some(1.0)]);
            assert_eq!(entries["b"].numbers().unwrap(), [Some(300.0), Some(-1.0)]);
        }
    }

    #[test]
    fn code_is_named_and_refused() {
        // The classic: os.system("touch x") on load.
        let message = Pickle::read(b"cposix\nsystem\n(S'touch x'\ntR.").unwrap_err();
        assert!(
            message.contains("`posix.system`") && message.contains("nothing of it was executed"),
            "{message}"
        );
        let stacked = b"\x80\x04\x8c\x08builtins\x94\x8c\x04eval\x94\x93\x94.";
        assert!(Pickle::read(stacked).unwrap_err().contains("`builtins.eval`"));
        // REDUCE without any global.
        assert!(Pickle::read(b"NNR.").unwrap_err().contains("instruction 0x52"));
    }

    #[test]
    fn a_value_may_hold_itself() {
        let pickle = Pickle::read(b"]q\x00h\x00a.").unwrap();
        assert_eq!(pickle.root().list().unwrap().len(), 1);
        assert!(pickle.root().numbers().is_none());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_value_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(pickle) = Pickle::read(&bytes) {
                let _ = pickle.root().kind();
            }
        }
    }
}
