package main

import (
	"context"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// shells holds the completion script of each shell.
var shells = map[string]string{
	"bash": `# In ~/.bashrc: source <(zkq completion bash)
_zkq() {
	local IFS=$'\n'
	COMPREPLY=($(zkq __complete bash "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _zkq zkq
`,
	"zsh": `#compdef zkq
# In ~/.zshrc, after compinit: source <(zkq completion zsh)
_zkq() {
	local -a found
	found=("${(@f)$(zkq __complete zsh "${(@)words[2,CURRENT]}" 2>/dev/null)}")
	if [[ -n "${found[1]}" ]]; then
		compadd -- "${found[@]}"
	else
		_files
	fi
}
compdef _zkq zkq
`,
	"fish": `# In ~/.config/fish/config.fish: zkq completion fish | source
function __zkq_complete
	set -l before (commandline -opc)
	zkq __complete fish $before[2..] (commandline -ct) 2>/dev/null
end
complete -c zkq -a '(__zkq_complete)'
`,
	"powershell": `# In $PROFILE: zkq completion powershell | Out-String | Invoke-Expression
Register-ArgumentCompleter -Native -CommandName zkq -ScriptBlock {
	param($word, $ast, $cursor)
	$words = @($ast.CommandElements | Select-Object -Skip 1 | ForEach-Object { $_.ToString() })
	if ($word -eq '') { $words += '""' }
	zkq __complete powershell @words 2>$null | ForEach-Object {
		[System.Management.Automation.CompletionResult]::new($_, $_, 'ParameterValue', $_)
	}
}
`,
}

// shellNames lists the shells in the order in which help shows them.
var shellNames = []string{"bash", "zsh", "fish", "powershell"}

func completionVerb() verb {
	return verb{
		name:    "completion",
		args:    strings.Join(shellNames, "|"),
		usage:   "print a script that completes commands and flags in a shell",
		example: []string{"source <(zkq completion bash)"},
		min:     1, max: 1, offline: true,
		run: func(_ context.Context, k *call) error {
			name, err := oneOf(shellNames...)(k.words[0])
			if err != nil {
				return usageError("", "shell %w", err)
			}
			return k.out.text(shells[name])
		},
	}
}

// completeVerb is the hidden verb that the scripts call. Its arguments are the shell's
// name and the words after zkq. It prints the completions of the last word.
func completeVerb() verb {
	return verb{
		name: "__complete", hidden: true, max: -1, offline: true,
		run: func(_ context.Context, k *call) error {
			if len(k.words) < 2 {
				return nil
			}
			for _, word := range k.complete(k.words[0], k.words[1:]) {
				if err := k.out.text(word + "\n"); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// flagWords lists the allowed values of each flag that takes one of a few words.
var flagWords = map[string][]string{
	"layout":    {string(layoutLocking), string(layoutPlain)},
	"output":    {"text", "json"},
	"log-level": {"trace", "debug", "info", "warn", "error", "off"},
	"progress":  {"auto", "always", "never"},
	"state":     allStates,
}

// complete returns the completions of the last word. If there are none, the shell offers
// file names.
func (p *program) complete(shell string, words []string) []string {
	if shell == "bash" {
		words = joinEquals(words)
	}
	last := words[len(words)-1]
	var cmd *cli.Command
	flags := p.app.Flags
	for i := 0; i < len(words)-1; i++ {
		w := words[i]
		if w == "--" {
			return nil
		}
		if !flagLike(w) {
			if cmd != nil {
				return nil // an argument: flags may not follow it
			}
			if cmd = p.app.Command(w); cmd == nil {
				return nil
			}
			flags = cmd.Flags
			continue
		}
		name, _, inline := strings.Cut(strings.TrimLeft(w, "-"), "=")
		f := findFlag(flags, name)
		if f == nil || inline || !takesValue(f) {
			continue
		}
		if i++; i == len(words)-1 {
			return startingWith(last, flagWords[f.Names()[0]])
		}
	}
	if name, value, inline := strings.Cut(last, "="); inline && flagLike(last) {
		f := findFlag(flags, strings.TrimLeft(name, "-"))
		if f == nil {
			return nil
		}
		found := startingWith(value, flagWords[f.Names()[0]])
		if shell != "bash" { // bash completes only the part after =
			for i := range found {
				found[i] = name + "=" + found[i]
			}
		}
		return found
	}
	switch {
	case strings.HasPrefix(last, "-"):
		var names []string
		for _, f := range flags {
			for _, n := range f.Names() {
				if len(n) > 1 || last == "-" {
					names = append(names, withDashes(n))
				}
			}
		}
		return startingWith(last, names)
	case cmd == nil:
		return startingWith(last, p.verbNames())
	case cmd.Name == "help":
		return startingWith(last, p.verbNames())
	case cmd.Name == "completion":
		return startingWith(last, shellNames)
	}
	return nil
}

// verbNames returns the names of all verbs that are not hidden.
func (p *program) verbNames() (names []string) {
	for _, c := range p.app.Commands {
		if !c.Hidden {
			names = append(names, c.Name)
		}
	}
	return names
}

func startingWith(prefix string, words []string) []string {
	return slices.DeleteFunc(slices.Clone(words), func(w string) bool { return !strings.HasPrefix(w, prefix) })
}

// joinEquals joins --flag=value, which bash splits into three words.
func joinEquals(words []string) []string {
	var joined []string
	for i := 0; i < len(words); i++ {
		if words[i] == "=" && len(joined) > 0 {
			joined[len(joined)-1] += "="
			if i+1 < len(words) {
				i++
				joined[len(joined)-1] += words[i]
			}
			continue
		}
		joined = append(joined, words[i])
	}
	return joined
}
