//! A restricted reader of Python pickles: what a PyTorch state dict is made of, and nothing else.
//!
//! Nothing is ever executed. A pickle names callables (`GLOBAL`) and applies them (`REDUCE`); here the few
//! that a state dict needs have a meaning of their own, and any other name refuses the file. Values live in
//! one flat arena and refer to each other by index, so neither nesting nor cycles can exhaust the stack, and
//! memory stays proportional to the bytes read.
//!
//! The format: CPython's `Lib/pickletools.py`; what PyTorch writes: `torch/serialization.py`.

use std::collections::HashMap;
use tch::Kind;

/// Index of a value in its [`Pickle`].
pub type Id = usize;

/// A pickled value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// An integer that fits into 64 bits.
    Int(i64),
    /// A longer one, little-endian two's complement.
    LongInt(&'a [u8]),
    /// A string.
    Text(&'a str),
    /// A tuple.
    Tuple(Vec<Id>),
    /// A list.
    List(Vec<Id>),
    /// A `dict` or `OrderedDict`.
    Dict(Vec<(Id, Id)>),
    /// A callable from the short list.
    Global(Global),
    /// A stretch of elements that is stored outside the pickle.
    Storage(Storage<'a>),
    /// A strided view of a storage.
    Tensor(TensorView),
}

/// The callables that a state dict names.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Global {
    /// `collections.OrderedDict`
    OrderedDict,
    /// `torch._utils._rebuild_tensor_v2`
    RebuildTensor,
    /// `torch._utils._rebuild_parameter`
    RebuildParameter,
    /// `torch.FloatStorage` and its like
    StorageType(Kind),
}

/// Elements stored outside the pickle.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Storage<'a> {
    /// The name that it is stored under.
    pub key: &'a str,
    /// The kind of its elements.
    pub kind: Kind,
    /// The number of its elements.
    pub elements: usize,
}

/// A strided view of a storage, in elements. It lies within the storage and has no more elements than it.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorView {
    /// The [`Value::Storage`].
    pub storage: Id,
    /// The first element.
    pub offset: i64,
    /// Its shape.
    pub size: Vec<i64>,
    /// Elements between neighbours of each dimension.
    pub stride: Vec<i64>,
}

/// One pickle, read.
#[derive(Debug)]
pub struct Pickle<'a> {
    values: Vec<Value<'a>>,
    root: Id,
    /// How many bytes it took.
    pub consumed: usize,
}

impl<'a> Pickle<'a> {
    /// Reads the pickle that begins at the first byte. The error says where and why.
    pub fn read(bytes: &'a [u8]) -> Result<Self, String> {
        let mut reader =
            Reader { bytes, at: 0, values: Vec::new(), stack: Vec::new(), marks: Vec::new(), memo: HashMap::new() };
        match reader.run() {
            Ok(root) => Ok(Self { values: reader.values, root, consumed: reader.at }),
            Err(reason) => Err(format!("pickle, byte {}: {reason}", reader.at)),
        }
    }

    /// The value that was pickled.
    pub fn root(&self) -> &Value<'a> {
        &self.values[self.root]
    }

    /// Every storage that any value names.
    pub fn storages(&self) -> impl Iterator<Item = Storage<'a>> {
        self.values.iter().filter_map(|value| match value {
            Value::Storage(storage) => Some(*storage),
            _ => None,
        })
    }

    /// The value of this index.
    pub fn value(&self, id: Id) -> &Value<'a> {
        &self.values[id]
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    values: Vec<Value<'a>>,
    stack: Vec<Id>,
    /// Heights of the stack at each open MARK.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl<'a> Reader<'a> {
    /// Runs the pickle's program up to its STOP and gives what is left on the stack.
    fn run(&mut self) -> Result<Id, String> {
        loop {
            match self.byte()? {
                b'.' => return self.pop(),
                0x80 => match self.byte()? {
                    2 | 3 => {} // the protocols that PyTorch has ever written
                    protocol => return Err(format!("pickle protocol {protocol} is not read")),
                },
                b'N' => self.push(Value::None),
                0x88 => self.push(Value::Bool(true)),
                0x89 => self.push(Value::Bool(false)),
                b'K' => {
                    let number = self.byte()?;
                    self.push(Value::Int(number.into()));
                }
                b'M' => {
                    let number = u16::from_le_bytes(self.array()?);
                    self.push(Value::Int(number.into()));
                }
                b'J' => {
                    let number = i32::from_le_bytes(self.array()?);
                    self.push(Value::Int(number.into()));
                }
                0x8a => self.long_int()?,
                b'X' => {
                    let length = self.u32()?;
                    self.text(length)?;
                }
                b'U' => {
                    let length = self.byte()?;
                    self.text(length.into())?;
                }
                b'(' => self.marks.push(self.stack.len()),
                b')' => self.push(Value::Tuple(Vec::new())),
                0x85 => self.tuple(1)?,
                0x86 => self.tuple(2)?,
                0x87 => self.tuple(3)?,
                b't' => {
                    let items = self.pop_to_mark()?;
                    self.push(Value::Tuple(items));
                }
                b']' => self.push(Value::List(Vec::new())),
                b'a' => {
                    let item = self.pop()?;
                    self.top_list()?.push(item);
                }
                b'e' => {
                    let items = self.pop_to_mark()?;
                    self.top_list()?.extend(items);
                }
                b'}' => self.push(Value::Dict(Vec::new())),
                b's' => {
                    let (value, key) = (self.pop()?, self.pop()?);
                    self.top_dict()?.push((key, value));
                }
                b'u' => {
                    let items = self.pop_to_mark()?;
                    let (pairs, rest) = items.as_chunks::<2>();
                    if !rest.is_empty() {
                        return Err("a key without a value".into());
                    }
                    self.top_dict()?.extend(pairs.iter().map(|[key, value]| (*key, *value)));
                }
                b'q' => {
                    let slot = self.byte()?;
                    self.memoise(slot.into())?;
                }
                b'r' => {
                    let slot = self.u32()?;
                    self.memoise(slot)?;
                }
                b'h' => {
                    let slot = self.byte()?;
                    self.recall(slot.into())?;
                }
                b'j' => {
                    let slot = self.u32()?;
                    self.recall(slot)?;
                }
                b'c' => self.global()?,
                b'Q' => self.storage()?,
                b'R' => self.reduce()?,
                b'b' => {
                    // Attributes of an OrderedDict (`_metadata`): nothing that we need.
                    self.pop()?;
                    self.top_dict()?;
                }
                opcode => return Err(format!("opcode {opcode:#04x} has no place in a state dict")),
            }
        }
    }

    /// `GLOBAL`: a callable by its module and name.
    fn global(&mut self) -> Result<(), String> {
        let (module, name) = (self.line()?, self.line()?);
        let global = match (module, name) {
            ("collections", "OrderedDict") => Global::OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2") => Global::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Global::RebuildParameter,
            ("torch", "DoubleStorage") => Global::StorageType(Kind::Double),
            ("torch", "FloatStorage") => Global::StorageType(Kind::Float),
            ("torch", "HalfStorage") => Global::StorageType(Kind::Half),
            ("torch", "BFloat16Storage") => Global::StorageType(Kind::BFloat16),
            ("torch", "LongStorage") => Global::StorageType(Kind::Int64),
            ("torch", "IntStorage") => Global::StorageType(Kind::Int),
            ("torch", "ShortStorage") => Global::StorageType(Kind::Int16),
            ("torch", "CharStorage") => Global::StorageType(Kind::Int8),
            ("torch", "ByteStorage") => Global::StorageType(Kind::Uint8),
            ("torch", "BoolStorage") => Global::StorageType(Kind::Bool),
            _ => {
                return Err(format!(
                    "it names `{}.{}`, which is no part of a state dict: refused, nothing was executed",
                    module.escape_debug(),
                    name.escape_debug()
                ));
            }
        };
        self.push(Value::Global(global));
        Ok(())
    }

    /// `BINPERSID`: `('storage', type, key, device, elements)`, in older files with a view at the end.
    fn storage(&mut self) -> Result<(), String> {
        let id = self.pop()?;
        let Value::Tuple(items) = &self.values[id] else { return Err("a persistent id that is no tuple".into()) };
        let items: Vec<&Value<'a>> = items.iter().map(|&item| &self.values[item]).collect();
        let storage = match items[..] {
            [
                Value::Text("storage"),
                Value::Global(Global::StorageType(kind)),
                Value::Text(key),
                _,
                Value::Int(elements),
            ]
            | [
                Value::Text("storage"),
                Value::Global(Global::StorageType(kind)),
                Value::Text(key),
                _,
                Value::Int(elements),
                Value::None,
            ] => {
                let elements = usize::try_from(*elements).map_err(|_| "a storage of negative size".to_owned())?;
                Storage { key, kind: *kind, elements }
            }
            _ => return Err("a persistent id that is no storage".into()),
        };
        self.push(Value::Storage(storage));
        Ok(())
    }

    /// `REDUCE`: what applying one of the known callables gives.
    fn reduce(&mut self) -> Result<(), String> {
        let (arguments, callable) = (self.pop()?, self.pop()?);
        let Value::Global(callable) = self.values[callable] else {
            return Err("something applied that is no callable".into());
        };
        let Value::Tuple(arguments) = &self.values[arguments] else {
            return Err("a callable applied to something that is no tuple".into());
        };
        // No more than are looked at: a tuple of millions may be the argument of millions of calls.
        let arguments: Vec<Id> = arguments.iter().take(MOST_ARGUMENTS).copied().collect();
        match (callable, &arguments[..]) {
            (Global::OrderedDict, []) => self.push(Value::Dict(Vec::new())),
            (Global::RebuildTensor, [storage, offset, size, stride, ..]) => {
                let view = self.tensor_view(*storage, *offset, *size, *stride)?;
                self.push(Value::Tensor(view));
            }
            (Global::RebuildParameter, [tensor, ..]) if matches!(self.values[*tensor], Value::Tensor(_)) => {
                self.stack.push(*tensor);
            }
            _ => return Err(format!("{callable:?} applied to {} arguments", arguments.len())),
        }
        Ok(())
    }

    fn tensor_view(&self, storage: Id, offset: Id, size: Id, stride: Id) -> Result<TensorView, String> {
        let (Value::Storage(Storage { elements, .. }), Value::Int(offset)) =
            (&self.values[storage], &self.values[offset])
        else {
            return Err("a tensor without a storage".into());
        };
        let (size, stride) = (self.sizes(size)?, self.sizes(stride)?);
        if size.len() != stride.len() || size.len() > 16 || *offset < 0 {
            return Err("a tensor of impossible shape".into());
        }
        // The number of elements and the last element's place; `None` where the arithmetic overflows.
        let count = size.iter().try_fold(1i64, |count, size| count.checked_mul(*size));
        let last = size
            .iter()
            .zip(&stride)
            .try_fold(*offset, |last, (size, stride)| last.checked_add((size - 1).max(0).checked_mul(*stride)?));
        match (count, last) {
            (Some(0), Some(_)) => Ok(TensorView { storage, offset: 0, size, stride }),
            (Some(count), Some(last)) if count as usize <= *elements && (last as usize) < *elements => {
                Ok(TensorView { storage, offset: *offset, size, stride })
            }
            _ => Err(format!("a tensor of shape {size:?} that does not fit its storage of {elements} elements")),
        }
    }

    fn sizes(&self, id: Id) -> Result<Vec<i64>, String> {
        let Value::Tuple(items) = &self.values[id] else { return Err("a shape that is no tuple".into()) };
        let size = |item: &Id| match self.values[*item] {
            Value::Int(size) if size >= 0 => Ok(size),
            _ => Err("a shape that is not made of numbers".to_owned()),
        };
        items.iter().map(size).collect()
    }

    fn long_int(&mut self) -> Result<(), String> {
        let length = self.byte()?;
        let digits = self.take(length.into())?;
        let value = if digits.len() > 8 {
            Value::LongInt(digits)
        } else {
            let negative = digits.last().is_some_and(|last| last & 0x80 != 0);
            let mut extended = [if negative { 0xff } else { 0 }; 8];
            extended[..digits.len()].copy_from_slice(digits);
            Value::Int(i64::from_le_bytes(extended))
        };
        self.push(value);
        Ok(())
    }

    fn text(&mut self, length: u32) -> Result<(), String> {
        let bytes = self.take(length as usize)?;
        let text = std::str::from_utf8(bytes).map_err(|_| "a string that is not UTF-8".to_owned())?;
        self.push(Value::Text(text));
        Ok(())
    }

    fn tuple(&mut self, length: usize) -> Result<(), String> {
        let begin = self.stack.len().checked_sub(length).filter(|&begin| begin >= self.floor()).ok_or(EMPTY_STACK)?;
        let items = self.stack.split_off(begin);
        self.push(Value::Tuple(items));
        Ok(())
    }

    fn memoise(&mut self, slot: u32) -> Result<(), String> {
        let top = *self.stack.last().ok_or(EMPTY_STACK)?;
        self.memo.insert(slot, top);
        Ok(())
    }

    fn recall(&mut self, slot: u32) -> Result<(), String> {
        let id = *self.memo.get(&slot).ok_or_else(|| format!("memo {slot} was never written"))?;
        self.stack.push(id);
        Ok(())
    }

    fn push(&mut self, value: Value<'a>) {
        self.stack.push(self.values.len());
        self.values.push(value);
    }

    /// Below this height the stack belongs to an open MARK.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Result<Id, String> {
        if self.stack.len() <= self.floor() {
            return Err(EMPTY_STACK.into());
        }
        self.stack.pop().ok_or_else(|| EMPTY_STACK.into())
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>, String> {
        let height = self.marks.pop().ok_or("no mark on the stack")?;
        Ok(self.stack.split_off(height))
    }

    fn top_list(&mut self) -> Result<&mut Vec<Id>, String> {
        match self.stack.last().map(|&id| &mut self.values[id]) {
            Some(Value::List(items)) => Ok(items),
            _ => Err("items for something that is no list".into()),
        }
    }

    fn top_dict(&mut self) -> Result<&mut Vec<(Id, Id)>, String> {
        match self.stack.last().map(|&id| &mut self.values[id]) {
            Some(Value::Dict(pairs)) => Ok(pairs),
            _ => Err("keys or attributes for something that is no dict".into()),
        }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let taken = self.bytes[self.at..].get(..count).ok_or("it ends too early")?;
        self.at += count;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, String> {
        Ok(self.take(1)?[0])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Up to a newline, which is dropped.
    fn line(&mut self) -> Result<&'a str, String> {
        const LONGEST_NAME: usize = 256;
        let rest = &self.bytes[self.at..];
        let length = rest.iter().take(LONGEST_NAME).position(|&byte| byte == b'\n').ok_or("a name without an end")?;
        self.at += length + 1;
        std::str::from_utf8(&rest[..length]).map_err(|_| "a name that is not UTF-8".into())
    }
}

/// How many arguments of a callable have a meaning.
const MOST_ARGUMENTS: usize = 4;
const EMPTY_STACK: &str = "the stack is empty";

#[cfg(test)]
mod tests;
