use super::*;

#[test]
fn plain_values_are_read() {
    // pickle.dumps({"a": (1, -2, 70000, True, None), "b": [2**70]}, protocol=2)
    let bytes = b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01(K\x01J\xfe\xff\xff\xffJp\x11\x01\x00\x88Ntq\x02X\x01\x00\x00\x00bq\x03]q\x04\x8a\t\x00\x00\x00\x00\x00\x00\x00\x00@au.trailing";
    let pickle = Pickle::read(bytes).unwrap();
    assert_eq!(&bytes[pickle.consumed..], b"trailing");
    let Value::Dict(pairs) = pickle.root() else { panic!("{:?}", pickle.root()) };
    assert_eq!(pickle.value(pairs[0].0), &Value::Text("a"));
    let Value::Tuple(items) = pickle.value(pairs[0].1) else { panic!() };
    let items: Vec<_> = items.iter().map(|&id| pickle.value(id).clone()).collect();
    assert_eq!(items, [Value::Int(1), Value::Int(-2), Value::Int(70000), Value::Bool(true), Value::None]);
    let Value::List(items) = pickle.value(pairs[1].1) else { panic!() };
    assert_eq!(pickle.value(items[0]), &Value::LongInt(&[0, 0, 0, 0, 0, 0, 0, 0, 0x40]));
}

#[test]
fn callables_outside_a_state_dict_are_refused_by_name() {
    for (bytes, name) in [
        (&b"\x80\x02cposix\nsystem\nX\x04\x00\x00\x00true\x85R."[..], "posix.system"),
        (b"\x80\x02cbuiltins\neval\nX\x01\x00\x00\x001\x85R.", "builtins.eval"),
        (b"\x80\x02ctorch\nload\n.", "torch.load"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor\n.", "torch._utils._rebuild_tensor"),
    ] {
        let message = Pickle::read(bytes).unwrap_err();
        assert!(message.contains(name) && message.contains("refused"), "{message}");
    }
}

#[test]
fn opcodes_outside_a_state_dict_are_refused() {
    // INST, OBJ, NEWOBJ, STACK_GLOBAL, EXT1, REDUCE_EX's protocols 4 and 5.
    for bytes in [&b"(ios\nsystem\n."[..], b"(o.", b"\x81.", b"\x93.", b"\x82\x01.", b"\x80\x04N.", b"\x80\x05N."] {
        assert!(Pickle::read(bytes).is_err(), "{bytes:?}");
    }
}

#[test]
fn deep_nesting_and_cycles_are_harmless() {
    let mut deep = b"\x80\x02N".to_vec();
    deep.extend(std::iter::repeat_n(0x85, 1_000_000));
    deep.push(b'.');
    assert!(Pickle::read(&deep).is_ok());
    assert!(Pickle::read(b"\x80\x02]q\x00h\x00a.").is_ok()); // a list that holds itself
}

#[test]
fn tensors_must_lie_within_their_storage() {
    let tensor = |offset: u8, size: [u8; 2], stride: [u8; 2]| {
        let mut bytes = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x06tQ".to_vec();
        bytes.extend([b'K', offset, b'K', size[0], b'K', size[1], 0x86, b'K', stride[0], b'K', stride[1], 0x86]);
        bytes.extend(b"\x89NtR.");
        match Pickle::read(&bytes)?.root() {
            Value::Tensor(view) => Ok(view.clone()),
            other => Err(format!("{other:?}")),
        }
    };
    let view = tensor(0, [2, 3], [1, 2]).unwrap(); // transposed
    assert_eq!((view.size, view.stride), (vec![2, 3], vec![1, 2]));
    for (offset, size, stride) in
        [(1, [2, 3], [3, 1]), (0, [2, 3], [4, 1]), (0, [2, 4], [0, 1]), (0, [200, 200], [0, 0])]
    {
        assert!(tensor(offset, size, stride).is_err(), "{offset} {size:?} {stride:?}");
    }
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        let _ = Pickle::read(&bytes);
    }

    /// Programs of known opcodes get further than random bytes.
    #[test]
    fn no_program_makes_it_panic(opcodes in proptest::collection::vec(proptest::sample::select(
        b"\x80\x02.NK\x01MJ\x8aXU()\x85\x86\x87t]ae}suqrhjcQRb\x88\x89torch\n".to_vec()), 0..80)) {
        let _ = Pickle::read(&opcodes);
    }
}

#[test]
fn a_call_takes_no_longer_for_arguments_that_mean_nothing() {
    let storage = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x01tQ";
    let view = b"K\0K\x01\x85K\x01\x85";
    let call = b"h\x01h\0R";
    let pickle = [
        &b"\x80\x02("[..],
        storage,
        view,
        &b"N".repeat(1_000_000),
        b"tq\0ctorch._utils\n_rebuild_tensor_v2\nq\x01",
        &call.repeat(200_000), // each would copy a million arguments
        b".",
    ];
    let pickle = pickle.concat();
    let read = Pickle::read(&pickle).unwrap();
    assert!(matches!(read.root(), Value::Tensor(view) if view.size == [1]));
}
