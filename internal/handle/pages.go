package handle

// Sizes of the pages in which directories are listed: of names, and of whole nodes, which
// may be large.
const (
	NamesPage = 4096
	NodesPage = 32
)
