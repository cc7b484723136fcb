//! Puts the folder of libtorch into the run path, so that the binaries run from any directory
//! with no variable set.

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    println!("cargo:rerun-if-changed=build.rs");
    let libtorch = std::path::PathBuf::from(std::env::var_os("LIBTORCH").unwrap_or_default());
    match libtorch.join("lib").canonicalize() {
        Ok(lib) => println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display()),
        Err(_) => panic!("no libtorch at LIBTORCH={}: run `make setup` first", libtorch.display()),
    }
}
