package embedded

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/client/pkg/v3/fileutil"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// ensureData creates etcd's data unless it exists. The data is created under another name,
// and renamed when etcd has elected itself once. So a start that is interrupted leaves
// nothing that a later one could not read. Only the owner calls it.
func (d directory) ensureData(ctx context.Context) error {
	if _, err := os.Stat(d.data()); err == nil && isUnused(d.data()) {
		// An older zkq created the data under its final name, and may have been killed before etcd
		// could elect itself. Nothing was ever stored in that data.
		if err := errors.Join(os.RemoveAll(d.newData()), os.Rename(d.data(), d.newData())); err != nil {
			return err
		}
	} else if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.RemoveAll(d.newData()); err != nil {
		return err
	}
	err := d.createData(ctx)
	if broken := (*brokenError)(nil); err != nil && !errors.As(err, &broken) {
		os.RemoveAll(d.newData())
	}
	return err
}

// createData has etcd create its data, and renames it.
func (d directory) createData(ctx context.Context) error {
	s, err := startServer(ctx, d.newData(), creatingTiming)
	if err != nil {
		return err
	}
	if err := s.close(); err != nil {
		return err
	}
	if err := syncDirectories(d.newData()); err != nil {
		return err
	}
	if err := os.Rename(d.newData(), d.data()); err != nil {
		return err
	}
	return syncDirectory(d.path)
}

// syncDirectories makes the names of all files below path durable. etcd has done so with
// their contents.
func syncDirectories(path string) error {
	return filepath.WalkDir(path, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return err
		}
		return syncDirectory(path)
	})
}

// syncDirectory makes the names in a directory durable.
func syncDirectory(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// isUnused reports whether it is certain that nothing was ever stored in etcd's data: the
// log is complete and holds only entries that etcd makes by itself, and the database is
// empty.
func isUnused(data string) bool {
	if snapshots(data) > 0 {
		return false
	}
	unused, err := isUnusedLog(filepath.Join(data, "member", "wal"))
	if err != nil || !unused {
		return false
	}
	empty, err := isEmptyDatabase(filepath.Join(data, "member", "snap", "db"))
	return err == nil && empty
}

// isUnusedLog reports whether the log holds no request of a client.
func isUnusedLog(dir string) (bool, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	for _, e := range entries { // etcd keeps what it repaired under another name
		if e.Name() != firstSegment && filepath.Ext(e.Name()) != ".tmp" {
			return false, nil
		}
	}
	f, err := os.Open(filepath.Join(dir, firstSegment))
	if err != nil {
		return false, err
	}
	defer f.Close()
	records, begun := wal.NewDecoder(fileutil.NewFileReader(f)), false
	for {
		var r walpb.Record
		err := records.Decode(&r)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return false, err // cut short or damaged
		}
		switch r.GetType() {
		case wal.MetadataType:
			begun = true
		case wal.CrcType:
			records.UpdateCRC(r.GetCrc())
		case wal.EntryType:
			if !isInternalEntry(r.GetData()) {
				return false, nil
			}
		}
	}
	// A damaged record would hide the ones after it.
	if _, err := f.Seek(records.LastOffset(), io.SeekStart); err != nil {
		return false, err
	}
	rest, err := io.ReadAll(f)
	return begun && err == nil && len(bytes.Trim(rest, "\x00")) == 0, err
}

// firstSegment is the name of the segment with which etcd's log begins.
const firstSegment = "0000000000000000-0000000000000000.wal"

// isInternalEntry reports whether an entry of the log is one that etcd makes by itself.
func isInternalEntry(entry []byte) bool {
	var e raftpb.Entry
	if err := proto.Unmarshal(entry, &e); err != nil {
		return false
	}
	if e.GetType() != raftpb.EntryNormal || len(e.GetData()) == 0 {
		return true
	}
	var r pb.InternalRaftRequest
	if err := proto.Unmarshal(e.GetData(), &r); err != nil {
		return false
	}
	r.Header, r.ID = nil, 0
	r.ClusterVersionSet, r.ClusterMemberAttrSet, r.DowngradeInfoSet = nil, nil, nil
	return proto.Size(&r) == 0
}

// isEmptyDatabase reports whether etcd's database holds no revision of any key.
func isEmptyDatabase(path string) (bool, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() == 0 {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		return false, fmt.Errorf("read %s: %w", path, err)
	}
	empty := true
	err = db.View(func(tx *bolt.Tx) error {
		for _, name := range []string{"key", "lease"} {
			if b := tx.Bucket([]byte(name)); b != nil {
				if k, _ := b.Cursor().First(); k != nil {
					empty = false
				}
			}
		}
		return nil
	})
	return empty, errors.Join(err, db.Close())
}
