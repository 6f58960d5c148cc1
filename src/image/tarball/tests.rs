use super::*;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;

struct Builder(tar::Builder<Vec<u8>>);

impl Builder {
    fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    /// Writes the name as it is: the library's own functions refuse what an attacker would write.
    fn add(mut self, name: &str, kind: EntryType, link: &str, content: &[u8]) -> Self {
        let mut header = tar::Header::new_ustar();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o4755);
        header.set_uid(7);
        header.set_gid(8);
        header.set_mtime(1_000_000_000);
        header.set_size(u64::try_from(content.len()).unwrap());
        if matches!(kind, EntryType::Char) {
            header.set_device_major(1).unwrap();
            header.set_device_minor(3).unwrap();
        }
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    fn file(self, name: &str, content: &str) -> Self {
        self.add(name, EntryType::Regular, "", content.as_bytes())
    }

    fn link(self, name: &str, target: &str) -> Self {
        self.add(name, EntryType::Symlink, target, b"")
    }

    fn hard(self, name: &str, target: &str) -> Self {
        self.add(name, EntryType::Link, target, b"")
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("canary"), "untouched").unwrap();
        Self(dir)
    }

    fn images(&self) -> PathBuf {
        self.0.path().join("images")
    }

    fn unpack(&self, bytes: &[u8]) -> Result<(PathBuf, Prepared), ImageError> {
        let path = self.0.path().join("image.tar");
        fs::write(&path, bytes).unwrap();
        let prepared = prepare(&self.images(), open(&path)?)?;
        match &prepared.layers {
            Layers::Overlay { base, grafts } if grafts.is_empty() => Ok((base.clone(), prepared.clone())),
            other => panic!("{other:?}"),
        }
    }

    fn refused(&self, bytes: &[u8]) -> String {
        let error = self.unpack(bytes).unwrap_err();
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        assert_eq!(fs::read_to_string(self.0.path().join("canary")).unwrap(), "untouched");
        let left = fs::read_dir(self.images()).map(|found| found.count()).unwrap_or(0);
        assert_eq!(left, 0, "a failed unpacking leaves nothing: {text}");
        text
    }
}

mod root {
    use super::*;

    fn sample() -> Vec<u8> {
        Builder::new()
            .add("./", EntryType::Directory, "", b"")
            .add("./usr/bin/", EntryType::Directory, "", b"")
            .link("bin", "usr/bin")
            .file("bin/tool", "program")
            .hard("usr/bin/other", "bin/tool")
            .file("made/on/the/way", "x")
            .add("dev/null", EntryType::Char, "", b"")
            .hard("dev/zero", "dev/null")
            .add("fifo", EntryType::Fifo, "", b"")
            .bytes()
    }

    #[test]
    #[ignore = "needs root"]
    fn plain_gzip_and_zstd_are_told_by_their_content() {
        let plain = sample();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&plain).unwrap();
        let gzip = gzip.finish().unwrap();
        let zstd = zstd::encode_all(&plain[..], 3).unwrap();

        for bytes in [&plain, &gzip, &zstd] {
            let place = Place::new();
            let (base, prepared) = place.unpack(bytes).unwrap();

            let tool = base.join("usr/bin/tool").metadata().unwrap();
            assert_eq!(fs::read_to_string(base.join("usr/bin/tool")).unwrap(), "program");
            assert_eq!((tool.uid(), tool.gid(), tool.mode() & 0o7777, tool.mtime()), (7, 8, 0o4755, 1_000_000_000));
            assert_eq!(base.join("usr/bin/other").metadata().unwrap().ino(), tool.ino());
            assert_eq!(base.join("bin").read_link().unwrap(), Path::new("usr/bin"));
            assert!(base.join("made/on/the/way").is_file());
            assert!(base.join("fifo").exists());
            assert!(base.join("dev/null").symlink_metadata().is_err());
            assert!(base.join("dev/zero").symlink_metadata().is_err());
            assert_eq!(prepared.notes.len(), 1, "{:?}", prepared.notes);
            assert_eq!(prepared.digest, Some(format!("sha256:{}", hex::encode(Sha256::digest(bytes)))));
            assert_eq!(place.images().metadata().unwrap().permissions().mode() & 0o777, 0o700);
        }
    }

    #[test]
    #[ignore = "needs root"]
    fn the_same_content_is_unpacked_once() {
        let place = Place::new();
        let (first, _) = place.unpack(&sample()).unwrap();
        let inode = first.metadata().unwrap().ino();

        let (second, _) = place.unpack(&sample()).unwrap();

        assert_eq!(second.metadata().unwrap().ino(), inode);
        assert_eq!(fs::read_dir(place.images()).unwrap().count(), 1);
    }

    #[test]
    #[ignore = "needs root"]
    fn a_link_leads_nowhere_but_into_the_image() {
        let place = Place::new();
        let out = place.0.path().to_str().unwrap().to_owned();
        let bytes = Builder::new()
            .add(out.trim_start_matches('/'), EntryType::Directory, "", b"")
            .link("abs", &out)
            .file("abs/canary", "overwritten")
            .link("up", "../..")
            .file("up/escaped", "x")
            .bytes();

        let (base, _) = place.unpack(&bytes).unwrap();

        assert_eq!(fs::read_to_string(place.0.path().join("canary")).unwrap(), "untouched");
        assert_eq!(fs::read_to_string(base.join(out.trim_start_matches('/')).join("canary")).unwrap(), "overwritten");
        assert!(base.join("escaped").is_file());
        assert!(!place.0.path().join("escaped").exists());
    }

    #[test]
    #[ignore = "needs root"]
    fn a_file_over_a_link_replaces_the_link() {
        let place = Place::new();
        let out = place.0.path().join("canary");
        let bytes = Builder::new().link("file", out.to_str().unwrap()).file("file", "new").bytes();

        let (base, _) = place.unpack(&bytes).unwrap();

        assert_eq!(fs::read_to_string(out).unwrap(), "untouched");
        assert_eq!(fs::read_to_string(base.join("file")).unwrap(), "new");
    }

    #[test]
    #[ignore = "needs root"]
    fn names_that_lead_out_are_refused() {
        for name in ["../canary", "a/../../canary", "/canary"] {
            let text = Place::new().refused(&Builder::new().file("fine", "x").file(name, "overwritten").bytes());
            assert!(text.contains("canary"), "{text}");
        }
    }

    #[test]
    #[ignore = "needs root"]
    fn hard_links_that_lead_out_are_refused() {
        let place = Place::new();
        let out = place.0.path().join("canary");
        for target in ["../canary", out.to_str().unwrap()] {
            let text = place.refused(&Builder::new().file("fine", "x").hard("link", target).bytes());
            assert!(text.contains("leads out"), "{text}");
        }
        // Through a link of the image's own the name is looked for inside, and is not there.
        let through = Builder::new().link("dir", place.0.path().to_str().unwrap()).hard("link", "dir/canary").bytes();
        place.refused(&through);
    }

    #[test]
    #[ignore = "needs root"]
    fn bombs_are_refused() {
        let mut header = tar::Header::new_gnu();
        header.set_path("zeros").unwrap();
        header.set_size(1 << 30);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(header.as_bytes()).unwrap();
        io::copy(&mut io::repeat(0).take(200 << 20), &mut gzip).unwrap();
        let bytes = gzip.finish().unwrap();

        // Twice as small as its size allows: the free part is what it may use up.
        let allowed = FREE_BYTES + MAX_RATIO * u64::try_from(bytes.len()).unwrap();
        let text = Place::new().refused(&bytes);

        if allowed < 200 << 20 {
            assert!(text.contains("bomb"), "{text}");
        }
    }

    #[test]
    #[ignore = "needs root"]
    fn a_sparse_file_of_nothing_is_a_bomb_too() {
        let mut header = tar::Header::new_gnu();
        header.set_path("sparse").unwrap();
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_entry_type(EntryType::GNUSparse);
        header.set_size(0);
        let gnu = header.as_gnu_mut().unwrap();
        let octal = |field: &mut [u8], value: u64| {
            let text = format!("{value:0width$o}\0", width = field.len() - 1);
            field.copy_from_slice(text.as_bytes());
        };
        octal(&mut gnu.realsize, 4 << 30);
        octal(&mut gnu.sparse[0].offset, 4 << 30);
        octal(&mut gnu.sparse[0].numbytes, 0);
        header.set_cksum();
        let mut builder = tar::Builder::new(Vec::new());
        builder.append(&header, &b""[..]).unwrap();

        let text = Place::new().refused(&builder.into_inner().unwrap());

        assert!(text.contains("bomb"), "{text}");
    }

    #[test]
    #[ignore = "needs root"]
    fn what_is_no_tarball_is_refused() {
        let good = sample();
        for (bytes, word) in [
            (&b""[..], "nothing"),
            (&[b'x'; 4096][..], ""),
            (&[0xfd, b'7', b'z', b'X', b'Z', 0, 0][..], "xz"),
            (&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0][..], ""),
            (&good[..good.len() / 3], ""),
        ] {
            let text = Place::new().refused(bytes);
            assert!(text.contains(word), "{text}");
        }
    }

    #[test]
    #[ignore = "needs root"]
    fn a_missing_file_and_a_directory_are_named() {
        let dir = tempfile::tempdir().unwrap();

        let missing = open(&dir.path().join("missing.tar")).unwrap_err().to_string();
        let wrong = open(dir.path()).unwrap_err().to_string();

        assert!(missing.contains("missing.tar: there is no such file"), "{missing}");
        assert!(wrong.contains("is not a regular file"), "{wrong}");
    }
}
