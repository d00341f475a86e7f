// Zookeeper writes, as a tar file on its standard output, the root file system of a container that runs ZooKeeper. All in it
// comes from this machine's own packages: a Java runtime, ZooKeeper's jars, bash, and the libraries these need.
package main

import (
	"archive/tar"
	"archive/zip"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

//go:embed entrypoint.sh
var entrypoint []byte

// jars are what ZooKeeper is started with; their manifests name the rest.
var jars = []string{"zookeeper.jar", "zookeeper-jute.jar", "slf4j-simple.jar"}

const (
	jarDir = "/usr/share/java"
	user   = 1000 // zookeeper's, as in the official image
)

func main() {
	r := &root{w: tar.NewWriter(os.Stdout), seen: make(map[string]bool)}
	if err := r.write(); err != nil {
		fmt.Fprintln(os.Stderr, "images/zookeeper:", err)
		os.Exit(1)
	}
}

func (r *root) write() error {
	for _, dir := range []string{"data", "datalog", "logs", "conf"} {
		if err := r.dir(dir, 0o755, user); err != nil {
			return err
		}
	}
	if err := r.dir("tmp", 0o1777, 0); err != nil {
		return err
	}
	for name, text := range map[string]string{
		"etc/passwd":        "root:x:0:0::/:/bin/bash\nzookeeper:x:1000:1000::/data:/bin/bash\n",
		"etc/group":         "root:x:0:\nzookeeper:x:1000:\n",
		"etc/nsswitch.conf": "hosts: files dns\n",
	} {
		if err := r.put(name, []byte(text), 0o644); err != nil {
			return err
		}
	}
	if err := r.put("entrypoint.sh", entrypoint, 0o755); err != nil {
		return err
	}
	if err := r.bash(); err != nil {
		return err
	}
	if err := r.java(); err != nil {
		return err
	}
	for _, jar := range jars {
		if err := r.jar(filepath.Join(jarDir, jar)); err != nil {
			return err
		}
	}
	return r.w.Close()
}

// root is the file system that is written.
type root struct {
	w    *tar.Writer
	seen map[string]bool // without a leading slash
}

func (r *root) bash() error {
	bash, err := exec.LookPath("bash")
	if err != nil {
		return err
	}
	if err := r.program(bash, "bin/bash"); err != nil {
		return err
	}
	return r.libraries(bash)
}

// java is the runtime that `java` is a part of, at /opt/java.
func (r *root) java() error {
	java, err := exec.LookPath("java")
	if err != nil {
		return err
	}
	if java, err = filepath.EvalSymlinks(java); err != nil {
		return err
	}
	home := filepath.Dir(filepath.Dir(java))
	if err := r.program(java, "opt/java/bin/java"); err != nil {
		return err
	}
	if err := r.libraries(java); err != nil {
		return err
	}
	for _, part := range []string{"conf", "lib"} {
		if err := r.javaFiles(home, part); err != nil {
			return err
		}
	}
	return nil
}

// javaFiles follows links: distributions keep a runtime's configuration elsewhere.
func (r *root) javaFiles(home, dir string) error {
	entries, err := os.ReadDir(filepath.Join(home, dir))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if slices.Contains([]string{"ct.sym", "src.zip"}, e.Name()) { // only compilers use them
			continue
		}
		name := filepath.Join(dir, e.Name())
		info, err := os.Stat(filepath.Join(home, name))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue // a link into a package that is not installed
		case err != nil:
			return err
		case info.IsDir():
			err = r.javaFiles(home, name)
		default:
			err = r.program(filepath.Join(home, name), filepath.Join("opt/java", name))
			if err == nil && strings.HasSuffix(name, ".so") {
				err = r.libraries(filepath.Join(home, name))
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// jar adds a jar and those that its manifest names, as far as they are installed.
func (r *root) jar(path string) error {
	name := strings.TrimPrefix(path, "/")
	if r.seen[name] {
		return nil
	}
	if err := r.program(path, name); err != nil {
		return err
	}
	z, err := zip.OpenReader(path)
	if err != nil {
		return err
	}
	defer z.Close()
	f, err := z.Open("META-INF/MANIFEST.MF")
	if err != nil {
		return err
	}
	defer f.Close()
	manifest, err := io.ReadAll(f)
	if err != nil {
		return err
	}
	for _, other := range classPath(string(manifest)) {
		if !filepath.IsAbs(other) {
			other = filepath.Join(filepath.Dir(path), other)
		}
		if err := r.jar(other); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// classPath reads a manifest, whose long lines go on after a newline and a space.
func classPath(manifest string) []string {
	manifest = strings.ReplaceAll(strings.ReplaceAll(manifest, "\r\n", "\n"), "\n ", "")
	for line := range strings.Lines(manifest) {
		if list, ok := strings.CutPrefix(line, "Class-Path:"); ok {
			return strings.Fields(list)
		}
	}
	return nil
}

var library = regexp.MustCompile(`(/\S+) \(0x`)

// libraries adds what a program or library is linked with.
func (r *root) libraries(path string) error {
	out, err := exec.Command("ldd", path).Output()
	if err != nil {
		return fmt.Errorf("ldd %s: %w", path, err)
	}
	for _, m := range library.FindAllStringSubmatch(string(out), -1) {
		if strings.Contains(m[1], "/jvm/") { // the runtime's own
			continue
		}
		if err := r.program(m[1], strings.TrimPrefix(m[1], "/")); err != nil {
			return err
		}
	}
	return nil
}

// program adds the file at path, wherever it links to.
func (r *root) program(path, name string) error {
	if r.seen[name] {
		return nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	return r.put(name, b, info.Mode().Perm()|0o444)
}

func (r *root) put(name string, b []byte, mode fs.FileMode) error {
	if err := r.parents(name); err != nil {
		return err
	}
	r.seen[name] = true
	if err := r.w.WriteHeader(&tar.Header{Name: name, Mode: int64(mode), Size: int64(len(b)), Typeflag: tar.TypeReg}); err != nil {
		return err
	}
	_, err := r.w.Write(b)
	return err
}

func (r *root) parents(name string) error {
	dir := filepath.Dir(name)
	if dir == "." || r.seen[dir] {
		return nil
	}
	if err := r.parents(dir); err != nil {
		return err
	}
	return r.dir(dir, 0o755, 0)
}

func (r *root) dir(name string, mode int64, owner int) error {
	r.seen[name] = true
	return r.w.WriteHeader(&tar.Header{Name: name + "/", Mode: mode, Uid: owner, Gid: owner, Typeflag: tar.TypeDir})
}
