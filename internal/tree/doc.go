// Package tree tests the source tree itself: what packages link, which methods public types have, that the documents
// name only tests, features and pages that exist, and limits for the size of the root package, of types and of
// functions. It has test files only.
package tree
