//! What a small program must not have in it.

#[test]
fn the_runtime_has_no_server_no_database_and_no_async_runtime_in_it() {
    let bytes = std::fs::read(env!("CARGO_BIN_EXE_plim-oci")).unwrap();
    for name in ["tokio", "hyper", "axum", "4sled"] {
        let found = bytes.windows(name.len()).any(|window| window == name.as_bytes());
        assert!(!found, "{name}");
    }
}
