//! Names of operators: what OFA and `ProxylessNAS` write before a latency.

use std::{fmt, str::FromStr};

/// Which of the two grammars names inverted residuals in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dialect {
    /// `ProxylessNAS` (Cai et al. 2019): `expand` is the ratio of the expanded width to the input's.
    ProxylessNas,
    /// Once-for-all on `MobileNetV3` (Cai et al. 2020): `expand` is the expanded width in channels,
    /// and `se` and `hs` follow.
    Ofa,
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ProxylessNas => "proxylessnas",
            Self::Ofa => "ofa",
        })
    }
}

/// Extents of feature maps, in the order of the keys: `112x112x24` is height, width, channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Maps {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Channels.
    pub channels: usize,
}

impl fmt::Display for Maps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}x{}", self.height, self.width, self.channels)
    }
}

/// The name of an operator, as the readers of both projects put it together
/// (`LatencyTable.query` of once-for-all, `LatencyEstimator.predict` of proxylessnas). Its text form
/// is exactly theirs, so that a key that is read and written again is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OperatorKey {
    /// `Conv`: the first convolution, 3×3 of stride 2.
    FirstConv {
        /// Input.
        input: Maps,
        /// Output.
        output: Maps,
    },
    /// `Conv_1`: the 1×1 convolution behind the blocks.
    Conv1 {
        /// Input.
        input: Maps,
        /// Output.
        output: Maps,
    },
    /// `Conv_2`: the 1×1 convolution behind the pooling (OFA only).
    Conv2 {
        /// Input.
        input: Maps,
        /// Output.
        output: Maps,
    },
    /// `AvgPool2D`: global average pooling (OFA only).
    AvgPool {
        /// Input.
        input: Maps,
        /// Output, of 1×1.
        output: Maps,
    },
    /// `Logits`: the classifier; for `ProxylessNAS` with the pooling before it.
    Logits {
        /// Input.
        input: Maps,
        /// Classes.
        classes: usize,
    },
    /// `expanded_conv` with `expand` as a ratio: an inverted residual of `ProxylessNAS`.
    Proxyless {
        /// Input.
        input: Maps,
        /// Output.
        output: Maps,
        /// Expanded width over the input's.
        ratio: usize,
        /// Side of the depthwise kernel.
        kernel: usize,
        /// Stride of the depthwise convolution.
        stride: usize,
        /// Whether the input is added to the output (`idskip`).
        skip: bool,
    },
    /// `expanded_conv` with `expand` in channels: an inverted residual of OFA's `MobileNetV3`.
    Ofa {
        /// Input.
        input: Maps,
        /// Output.
        output: Maps,
        /// Expanded width in channels.
        middle: usize,
        /// Side of the depthwise kernel.
        kernel: usize,
        /// Stride of the depthwise convolution.
        stride: usize,
        /// Whether the input is added to the output (`idskip`).
        skip: bool,
        /// With squeeze-and-excitation (`se`).
        squeeze_excite: bool,
        /// With hard swish in place of the rectifier (`hs`).
        hard_swish: bool,
    },
}

impl OperatorKey {
    /// The grammar that only this kind of key belongs to; `None` for keys that both have.
    pub const fn dialect(&self) -> Option<Dialect> {
        match self {
            Self::FirstConv { .. } | Self::Conv1 { .. } | Self::Logits { .. } => None,
            Self::Proxyless { .. } => Some(Dialect::ProxylessNas),
            Self::Conv2 { .. } | Self::AvgPool { .. } | Self::Ofa { .. } => Some(Dialect::Ofa),
        }
    }
}

impl fmt::Display for OperatorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::FirstConv { input, output } => write!(f, "Conv-input:{input}-output:{output}"),
            Self::Conv1 { input, output } => write!(f, "Conv_1-input:{input}-output:{output}"),
            Self::Conv2 { input, output } => write!(f, "Conv_2-input:{input}-output:{output}"),
            Self::AvgPool { input, output } => write!(f, "AvgPool2D-input:{input}-output:{output}"),
            Self::Logits { input, classes } => write!(f, "Logits-input:{input}-output:{classes}"),
            Self::Proxyless { input, output, ratio, kernel, stride, skip } => write!(
                f,
                "expanded_conv-input:{input}-output:{output}-expand:{ratio}-kernel:{kernel}-stride:{stride}-idskip:{}",
                u8::from(skip)
            ),
            Self::Ofa { input, output, middle, kernel, stride, skip, squeeze_excite, hard_swish } => write!(
                f,
                "expanded_conv-input:{input}-output:{output}-expand:{middle}-kernel:{kernel}-stride:{stride}\
                 -idskip:{}-se:{}-hs:{}",
                u8::from(skip),
                u8::from(squeeze_excite),
                u8::from(hard_swish)
            ),
        }
    }
}

impl FromStr for OperatorKey {
    type Err = String;

    /// Reads exactly the text that [`OperatorKey`] writes; anything else is an error that says what
    /// was expected.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split('-');
        let kind = parts.next().unwrap_or_default();
        let mut fields = Fields { parts };
        let input = fields.maps("input")?;
        let key = match kind {
            "Conv" => Self::FirstConv { input, output: fields.maps("output")? },
            "Conv_1" => Self::Conv1 { input, output: fields.maps("output")? },
            "Conv_2" => Self::Conv2 { input, output: fields.maps("output")? },
            "AvgPool2D" => Self::AvgPool { input, output: fields.maps("output")? },
            "Logits" => Self::Logits { input, classes: fields.number("output")? },
            "expanded_conv" => {
                let output = fields.maps("output")?;
                let expand = fields.number("expand")?;
                let kernel = fields.number("kernel")?;
                let stride = fields.number("stride")?;
                let skip = fields.switch("idskip")?;
                if fields.parts.clone().next().is_none() {
                    Self::Proxyless { input, output, ratio: expand, kernel, stride, skip }
                } else {
                    let squeeze_excite = fields.switch("se")?;
                    let hard_swish = fields.switch("hs")?;
                    Self::Ofa {
                        input,
                        output,
                        middle: expand,
                        kernel,
                        stride,
                        skip,
                        squeeze_excite,
                        hard_swish,
                    }
                }
            }
            _ => {
                return Err(format!(
                    "expected an operator (Conv, Conv_1, Conv_2, AvgPool2D, Logits or expanded_conv), got `{kind}`"
                ));
            }
        };
        match fields.parts.next() {
            None => Ok(key),
            Some(more) => Err(format!("expected the end of the key, got `{more}`")),
        }
    }
}

/// The rest of a key, field by field.
struct Fields<'a> {
    parts: std::str::Split<'a, char>,
}

impl<'a> Fields<'a> {
    fn value(&mut self, name: &str) -> Result<&'a str, String> {
        let part = self.parts.next().unwrap_or_default();
        let value = part.strip_prefix(name).and_then(|rest| rest.strip_prefix(':'));
        value.ok_or_else(|| format!("expected `{name}:…`, got {}", quoted(part)))
    }

    fn number(&mut self, name: &str) -> Result<usize, String> {
        let value = self.value(name)?;
        extent(value)
            .ok_or_else(|| format!("`{name}`: expected a whole number from 1 on, got {}", quoted(value)))
    }

    fn switch(&mut self, name: &str) -> Result<bool, String> {
        match self.value(name)? {
            "0" => Ok(false),
            "1" => Ok(true),
            other => Err(format!("`{name}`: expected 0 or 1, got {}", quoted(other))),
        }
    }

    fn maps(&mut self, name: &str) -> Result<Maps, String> {
        let value = self.value(name)?;
        let extents: Option<Vec<usize>> = value.split('x').map(extent).collect();
        match extents.as_deref() {
            Some([height, width, channels]) => {
                Ok(Maps { height: *height, width: *width, channels: *channels })
            }
            _ => Err(format!("`{name}`: expected HEIGHTxWIDTHxCHANNELS, got {}", quoted(value))),
        }
    }
}

/// A number as the keys write it: no sign, no leading zero, at most a million (no map is wider).
fn extent(text: &str) -> Option<usize> {
    let plain = !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|&number: &usize| plain && (1..=1_000_000).contains(&number))
}

fn quoted(text: &str) -> String {
    if text.is_empty() { "nothing".to_owned() } else { format!("`{text}`") }
}
