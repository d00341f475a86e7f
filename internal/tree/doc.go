// Package tree tests the source tree itself: what packages link, which methods public types have, and that the documents
// name only tests, features and pages that exist. It has test files only.
package tree
