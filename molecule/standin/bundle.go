package main

import (
	"archive/tar"
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"
)

//go:embed bundle
var bundleFiles embed.FS

func bundleText(name string) string {
	content, err := bundleFiles.ReadFile("bundle/" + name)
	if err != nil {
		return "unbundled"
	}
	return strings.TrimSpace(string(content))
}

func version() string    { return bundleText("version") }
func bundleHash() string { return bundleText("sha256") }

// imageReference names an image of the release's archive; they all bear the release's version as tag.
func imageReference(name string) string {
	return "lab.local/" + name + ":" + strings.ReplaceAll(version(), "+", "-")
}

// extractBundle unpacks the programs below data/<hash>/bin, once per release, and returns that directory.
func extractBundle() (string, error) {
	target := filepath.Join(bundleDir, bundleHash())
	bin := filepath.Join(target, "bin")
	if exists(bin) {
		return bin, nil
	}
	if os.Geteuid() != 0 {
		return "", fmt.Errorf("%s is missing and only root can unpack it: run the command once with sudo", bin)
	}
	content, err := bundleFiles.ReadFile("bundle/bundle.tar.zst")
	if err != nil {
		return "", errors.New("this binary was built without its bundle: build it by its recipe")
	}
	if err := os.MkdirAll(bundleDir, 0o755); err != nil {
		return "", err
	}
	staging, err := os.MkdirTemp(bundleDir, ".unpack-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(staging)
	if err := os.Chmod(staging, 0o755); err != nil {
		return "", err
	}
	if err := untar(bytes.NewReader(content), staging); err != nil {
		return "", fmt.Errorf("unpack to %s: %w", staging, err)
	}
	// Two commands may unpack at the same time: the first rename wins, the other finds the directory in place.
	if err := os.Rename(staging, target); err != nil && !exists(bin) {
		return "", err
	}
	return bin, nil
}

// linkCurrentBundle points data/current at the release that runs, as the official release does.
func linkCurrentBundle() error {
	next := filepath.Join(bundleDir, "current.new")
	_ = os.Remove(next)
	if err := os.Symlink(bundleHash(), next); err != nil {
		return err
	}
	return os.Rename(next, filepath.Join(bundleDir, "current"))
}

func untar(compressed io.Reader, target string) error {
	plain, err := zstd.NewReader(compressed)
	if err != nil {
		return err
	}
	defer plain.Close()
	archive := tar.NewReader(plain)
	for {
		header, err := archive.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if !filepath.IsLocal(header.Name) {
			return fmt.Errorf("entry %q leaves the target directory", header.Name)
		}
		path := filepath.Join(target, header.Name)
		switch header.Typeflag {
		case tar.TypeDir:
			err = os.MkdirAll(path, 0o755)
		case tar.TypeSymlink:
			err = os.Symlink(header.Linkname, path)
		case tar.TypeReg:
			err = writeEntry(path, archive, os.FileMode(header.Mode).Perm())
		default:
			err = fmt.Errorf("entry %q has type %q, wanted a file, link or directory", header.Name, header.Typeflag)
		}
		if err != nil {
			return err
		}
	}
}

func writeEntry(path string, content io.Reader, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	if _, err := io.Copy(file, content); err != nil {
		file.Close()
		return err
	}
	return file.Close()
}
