//! Genotypes as one line of text, in the forms that their fields use.

use std::fmt::Write as _;

use crate::{BlockGenotype, BlockSpec, Genotype, GenotypeError, Pick, Skeleton, Space, elastic};

impl Space {
    /// Reads a genotype from the text form of its field:
    ///
    /// - DARTS: `Genotype(normal=[('sep_conv_3x3', 1), …], normal_concat=range(2, 6), reduce=[…],
    ///   reduce_concat=range(2, 6))`, also with a name in front (`PC_DARTS_cifar = Genotype(…)`),
    ///   double quotes, or lists for `range`;
    /// - NAS-Bench-201: `|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|…|`;
    /// - stages: names or indices of the blocks, separated by commas or blanks;
    /// - elastic stages: `c2[w32 d2: ibn k5 | fused e8 | (tucker)]`, stage after stage: width, stride, depth
    ///   and entry where there is a choice, then the blocks; those that wait for a greater depth are in
    ///   brackets or left out.
    ///
    /// Edges of a node may come in any order; they are sorted.
    ///
    /// # Errors
    /// [`GenotypeError`] says what was expected at which character, or which place is wrong.
    pub fn parse(&self, text: &str) -> Result<Genotype, GenotypeError> {
        let mut reader = Reader::new(text);
        let mut blocks = match self.skeleton {
            Skeleton::Darts(_) => reader.cells(&self.blocks)?,
            Skeleton::Nas201(_) => {
                vec![BlockGenotype { name: self.blocks[0].name.clone(), nodes: reader.strings()? }]
            }
            Skeleton::Stages(_) => vec![reader.stages(&self.blocks[0])?],
            Skeleton::Elastic(_) => elastic::parse(self, &mut reader)?,
        };
        reader.end()?;
        for nodes in blocks.iter_mut().flat_map(|block| &mut block.nodes) {
            nodes.sort_by_key(|pick| pick.from);
        }
        let genotype = Genotype { blocks };
        self.validate(&genotype)?;
        Ok(genotype)
    }

    /// Writes a genotype in the text form of its field, such that [`Space::parse`] reads it back.
    pub fn format(&self, genotype: &Genotype) -> String {
        match self.skeleton {
            Skeleton::Darts(_) => self.format_cells(genotype),
            Skeleton::Nas201(_) => {
                let nodes = genotype.blocks.iter().flat_map(|block| &block.nodes).map(|picks| {
                    let edges = picks.iter().map(|pick| format!("{}~{}|", pick.choice, pick.from));
                    format!("|{}", edges.collect::<String>())
                });
                nodes.collect::<Vec<_>>().join("+")
            }
            Skeleton::Stages(_) => {
                let picks = genotype.blocks.iter().flat_map(|block| &block.nodes).flatten();
                picks.map(|pick| pick.choice.as_str()).collect::<Vec<_>>().join(",")
            }
            Skeleton::Elastic(_) => elastic::format(self, genotype),
        }
    }

    fn format_cells(&self, genotype: &Genotype) -> String {
        let blocks = genotype.blocks.iter().zip(&self.blocks).map(|(block, spec)| {
            let picks = block.nodes.iter().flatten();
            let edges: Vec<_> = picks.map(|pick| format!("('{}', {})", pick.choice, pick.from)).collect();
            let name = &block.name;
            let mut text = String::new();
            // Writing to a string can't fail.
            let _ = write!(
                text,
                "{name}=[{}], {name}_concat=range({}, {})",
                edges.join(", "),
                spec.inputs,
                spec.inputs + spec.nodes.len()
            );
            text
        });
        format!("Genotype({})", blocks.collect::<Vec<_>>().join(", "))
    }
}

/// Reads text character by character.
pub(crate) struct Reader<'a> {
    text: &'a str,
    /// Bytes read so far.
    at: usize,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// Whether nothing but blanks is left.
    pub(crate) fn is_empty(&mut self) -> bool {
        self.blanks();
        self.rest().is_empty()
    }

    fn blanks(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    /// Reads `token`, behind any blanks, if it comes next.
    pub(crate) fn accept(&mut self, token: &str) -> bool {
        self.blanks();
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    /// Reads `token`, behind any blanks.
    pub(crate) fn expect(&mut self, token: &str) -> Result<(), GenotypeError> {
        if self.accept(token) { Ok(()) } else { Err(self.unexpected(format!("`{token}`"))) }
    }

    /// Reads one or more characters of a kind.
    pub(crate) fn word(
        &mut self,
        expected: &str,
        kind: impl Fn(char) -> bool,
    ) -> Result<&'a str, GenotypeError> {
        self.blanks();
        let rest = self.rest();
        let len = rest.find(|character| !kind(character)).unwrap_or(rest.len());
        if len == 0 {
            return Err(self.unexpected(expected.into()));
        }
        self.at += len;
        Ok(&rest[..len])
    }

    fn name(&mut self, expected: &str) -> Result<&'a str, GenotypeError> {
        self.word(expected, |character| character.is_alphanumeric() || character == '_')
    }

    fn number(&mut self, expected: &str) -> Result<usize, GenotypeError> {
        self.blanks();
        let start = self.at;
        let digits = self.word(expected, |character| character.is_ascii_digit())?;
        digits.parse().map_err(|_| {
            self.at = start;
            self.unexpected(expected.into())
        })
    }

    fn end(&mut self) -> Result<(), GenotypeError> {
        self.blanks();
        if self.rest().is_empty() { Ok(()) } else { Err(self.unexpected("the end of the text".into())) }
    }

    /// Says what would have been right here.
    pub(crate) fn unexpected(&self, expected: String) -> GenotypeError {
        let at = self.text[..self.at].chars().count() + 1;
        let mut next: String = self.rest().chars().take(16).collect();
        if next.len() < self.rest().len() {
            next.push('…');
        }
        let got = if next.is_empty() { "the end of the text".into() } else { format!("`{next}`") };
        GenotypeError::Syntax { at, expected, got }
    }

    /// `Genotype(normal=[…], normal_concat=…, …)` with its fields in any order.
    fn cells(&mut self, specs: &[BlockSpec]) -> Result<Vec<BlockGenotype>, GenotypeError> {
        if self.name("`Genotype(`")? != "Genotype" {
            self.expect("=")?;
            self.expect("Genotype")?;
        }
        self.expect("(")?;
        let mut found: Vec<Option<BlockGenotype>> = vec![None; specs.len()];
        let mut first = true;
        while !self.accept(")") {
            if !first {
                self.expect(",")?;
                if self.accept(")") {
                    break;
                }
            }
            first = false;
            self.blanks();
            let start = self.at;
            let fields: Vec<_> =
                specs.iter().map(|spec| format!("`{0}` or `{0}_concat`", spec.name)).collect();
            let fields = fields.join(" or ");
            let field = self.name(&fields)?;
            let of = |name: &str| specs.iter().position(|spec| spec.name == name);
            if let Some(block) = of(field) {
                if found[block].is_some() {
                    self.at = start;
                    return Err(self.unexpected(format!("`{field}` once only")));
                }
                self.expect("=")?;
                found[block] = Some(self.cell(&specs[block])?);
            } else if let Some(block) = field.strip_suffix("_concat").and_then(of) {
                self.expect("=")?;
                self.concat(&specs[block])?;
            } else {
                self.at = start;
                return Err(self.unexpected(fields));
            }
        }
        let mut blocks = Vec::with_capacity(specs.len());
        for (spec, block) in specs.iter().zip(found) {
            blocks.push(block.ok_or_else(|| self.unexpected(format!("a field `{}=[…]`", spec.name)))?);
        }
        Ok(blocks)
    }

    /// `[('sep_conv_3x3', 1), …]`, dealt out to the nodes.
    fn cell(&mut self, spec: &BlockSpec) -> Result<BlockGenotype, GenotypeError> {
        let mut picks = Vec::new();
        self.expect("[")?;
        while !self.accept("]") {
            if !picks.is_empty() {
                self.expect(",")?;
                if self.accept("]") {
                    break;
                }
            }
            self.expect("(")?;
            let quote = if self.accept("\"") { "\"" } else { "'" };
            if quote == "'" {
                self.expect("'")?;
            }
            let choice = self.name("the name of an operation")?.to_owned();
            self.expect(quote)?;
            self.expect(",")?;
            let from = self.number("the number of a state")?;
            self.expect(")")?;
            picks.push(Pick { from, choice });
        }
        let expected = spec.nodes.iter().map(|node| node.keep).sum();
        if picks.len() != expected {
            return Err(GenotypeError::Edges { block: spec.name.clone(), expected, got: picks.len() });
        }
        let mut picks = picks.into_iter();
        let nodes = spec.nodes.iter().map(|node| picks.by_ref().take(node.keep).collect()).collect();
        Ok(BlockGenotype { name: spec.name.clone(), nodes })
    }

    /// `range(2, 6)` or `[2, 3, 4, 5]`: exactly the nodes of the block.
    fn concat(&mut self, spec: &BlockSpec) -> Result<(), GenotypeError> {
        self.blanks();
        let start = self.at;
        let nodes = spec.inputs..spec.inputs + spec.nodes.len();
        let mut states = Vec::new();
        if self.accept("range") {
            self.expect("(")?;
            let first = self.number("the first state")?;
            self.expect(",")?;
            let end = self.number("the state behind the last")?;
            self.expect(")")?;
            // Longer ranges are wrong already; don't write them out.
            states.extend((first..end).take(nodes.len() + 1));
        } else {
            if !self.accept("[") {
                return Err(self.unexpected(format!("`range({}, {})`", nodes.start, nodes.end)));
            }
            while !self.accept("]") {
                if !states.is_empty() {
                    self.expect(",")?;
                }
                states.push(self.number("the number of a state")?);
            }
        }
        if states != nodes.clone().collect::<Vec<_>>() {
            self.at = start;
            let expected = format!("`range({}, {})`: all nodes of the cell", nodes.start, nodes.end);
            return Err(self.unexpected(expected));
        }
        Ok(())
    }

    /// `|op~0|+|op~0|op~1|+…`.
    fn strings(&mut self) -> Result<Vec<Vec<Pick>>, GenotypeError> {
        let mut nodes = Vec::new();
        loop {
            self.expect("|")?;
            let mut picks = Vec::new();
            loop {
                let choice = self.name("the name of an operation")?.to_owned();
                self.expect("~")?;
                let from = self.number("the number of a state")?;
                self.expect("|")?;
                picks.push(Pick { from, choice });
                self.blanks();
                if self.rest().is_empty() || self.rest().starts_with('+') {
                    break;
                }
            }
            nodes.push(picks);
            if !self.accept("+") {
                return Ok(nodes);
            }
        }
    }

    /// `k3_e1,skip,…`, or the indices of the blocks.
    fn stages(&mut self, spec: &BlockSpec) -> Result<BlockGenotype, GenotypeError> {
        let mut nodes: Vec<Vec<Pick>> = Vec::new();
        loop {
            self.blanks();
            let start = self.at;
            let name = self.name("the name or index of a block")?;
            let index = nodes.len();
            let edge = spec.nodes.get(index).and_then(|node| node.edges.first());
            let choice = match (name.parse::<usize>(), edge) {
                (Ok(number), Some(edge)) => edge.choices.get(number).cloned().ok_or_else(|| {
                    self.at = start;
                    self.unexpected(format!("an index below {}", edge.choices.len()))
                })?,
                _ => name.to_owned(),
            };
            nodes.push(vec![Pick { from: index, choice }]);
            let comma = self.accept(",");
            if !comma && self.rest().is_empty() {
                return Ok(BlockGenotype { name: spec.name.clone(), nodes });
            }
        }
    }
}
