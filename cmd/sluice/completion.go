package main

import (
	"fmt"
	"strings"
)

// runCompletion prints a shell's completion.
func runCompletion(c *invocation) int {
	write := map[string]func([]command) string{"bash": completeBash, "zsh": completeZsh, "fish": completeFish}
	if len(c.words) != 1 || write[c.words[0]] == nil {
		fmt.Fprint(c.stderr, c.command.usage())
		return exitUsage
	}
	fmt.Fprint(c.stdout, write[c.words[0]](shown(commands())))
	return exitOK
}

// shown leaves out hidden commands.
func shown(all []command) (list []command) {
	for _, k := range all {
		if !k.hidden {
			list = append(list, k)
		}
	}
	return list
}

// isFile says whether what an option takes is completed as a file.
func (o *option) isFile() bool { return o.value == "FILE" || o.value == "PATH" }

// wordNames are the words of a command, each once.
func (k *command) wordNames() (names []string) {
	seen := map[string]bool{}
	for _, w := range k.words {
		if !seen[w.name] {
			seen[w.name] = true
			names = append(names, w.name)
		}
	}
	return names
}

// completeBash needs nothing of bash-completion, and works without it.
func completeBash(all []command) string {
	var b strings.Builder
	var names []string
	for i := range all {
		names = append(names, all[i].name)
	}
	fmt.Fprintf(&b, `# Completion of sluice in bash, made by sluice completion bash.
_sluice() {
	local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} words= options= files=
	COMPREPLY=()
	if ((COMP_CWORD == 1)); then
		COMPREPLY=($(compgen -W '%s' -- "$word"))
		return
	fi
	case ${COMP_WORDS[1]} in
`, strings.Join(names, " "))
	for i := range all {
		k := &all[i]
		var options, taking, files []string
		for j := range k.options {
			o := &k.options[j]
			options = append(options, o.dashed())
			switch {
			case o.isFile():
				files = append(files, o.dashed())
			case o.value != "":
				taking = append(taking, o.dashed())
			}
		}
		fmt.Fprintf(&b, "\t%s)\n\t\toptions='%s' words='%s'\n", k.name, strings.Join(options, " "), strings.Join(k.wordNames(), " "))
		if len(files)+len(taking) > 0 {
			b.WriteString("\t\tcase $before in\n")
			if len(files) > 0 {
				fmt.Fprintf(&b, "\t\t%s) files=1 ;;\n", strings.Join(files, " | "))
			}
			if len(taking) > 0 {
				fmt.Fprintf(&b, "\t\t%s) return ;;\n", strings.Join(taking, " | "))
			}
			b.WriteString("\t\tesac\n")
		}
		b.WriteString("\t\t;;\n")
	}
	b.WriteString(`	esac
	if [[ $files ]]; then
		mapfile -t COMPREPLY < <(compgen -f -- "$word")
	elif [[ $word == -* ]]; then
		COMPREPLY=($(compgen -W "$options" -- "$word"))
	elif ((COMP_CWORD == 2)) || [[ $before == -* ]]; then
		COMPREPLY=($(compgen -W "$words" -- "$word"))
	fi
}
complete -o filenames -F _sluice sluice
`)
	return b.String()
}

// completeZsh is a function for fpath.
func completeZsh(all []command) string {
	var b strings.Builder
	b.WriteString("#compdef sluice\n# Completion of sluice in zsh, made by sluice completion zsh.\n_sluice() {\n\tlocal -a commands words\n\tcommands=(\n")
	for i := range all {
		fmt.Fprintf(&b, "\t\t%s\n", quoted(all[i].name+":"+all[i].help))
	}
	b.WriteString("\t)\n\tif ((CURRENT == 2)); then\n\t\t_describe command commands\n\t\treturn\n\tfi\n\tcase $words[2] in\n")
	for i := range all {
		k := &all[i]
		fmt.Fprintf(&b, "\t%s)\n\t\t_arguments", k.name)
		for j := range k.options {
			o := &k.options[j]
			spec := o.dashed() + "[" + bracketed(o.help) + "]"
			if o.many {
				spec = "*" + spec
			}
			switch {
			case o.isFile():
				spec += ":" + o.value + ":_files"
			case o.value != "":
				spec += ":" + strings.Trim(strings.ReplaceAll(o.value, ":", ""), "'") + ": "
			}
			b.WriteString(" \\\n\t\t\t" + quoted(spec))
		}
		b.WriteString(" \\\n\t\t\t'1:command: '")
		if names := k.wordNames(); len(names) > 0 {
			b.WriteString(" \\\n\t\t\t" + quoted("2:word:("+strings.Join(names, " ")+")"))
		}
		b.WriteString("\n\t\t;;\n")
	}
	b.WriteString("\tesac\n}\n_sluice \"$@\"\n")
	return b.String()
}

// completeFish is lines of complete.
func completeFish(all []command) string {
	var b strings.Builder
	b.WriteString("# Completion of sluice in fish, made by sluice completion fish.\ncomplete -c sluice -f\n")
	for i := range all {
		k := &all[i]
		fmt.Fprintf(&b, "complete -c sluice -n __fish_use_subcommand -a %s -d %s\n", k.name, quoted(k.help))
		in := quoted("__fish_seen_subcommand_from " + k.name)
		if names := k.wordNames(); len(names) > 0 {
			fmt.Fprintf(&b, "complete -c sluice -n %s -a %s\n", in, quoted(strings.Join(names, " ")))
		}
		for j := range k.options {
			o := &k.options[j]
			flag := "-l " + o.name
			if len(o.name) == 1 {
				flag = "-s " + o.name
			}
			switch {
			case o.isFile():
				flag += " -r -F"
			case o.value != "":
				flag += " -x"
			}
			fmt.Fprintf(&b, "complete -c sluice -n %s %s -d %s\n", in, flag, quoted(o.help))
		}
	}
	return b.String()
}

// quoted is a word in single quotes, as all three shells read it.
func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// bracketed escapes what ends a description of zsh's _arguments.
func bracketed(s string) string {
	return strings.NewReplacer("[", `\[`, "]", `\]`, ":", `\:`).Replace(s)
}
