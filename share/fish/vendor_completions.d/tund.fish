# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_tund_global_optspecs
    string join \n mount= serve= adapter= v/verbose h/help V/version
end

function __fish_tund_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_tund_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_tund_using_subcommand
    set -l cmd (__fish_tund_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c tund -n "__fish_tund_needs_command" -l mount -d 'Serve the tree at this directory, through FUSE, until interrupted (Linux, as root)' -r -F
complete -c tund -n "__fish_tund_needs_command" -l serve -d 'Run small services on TCP and UDP of every interface: echo, discard, chargen' -r
complete -c tund -n "__fish_tund_needs_command" -l adapter -d 'Drive this Ethernet interface of the host, as eth0; once more for eth1, and so on (with --mount)' -r
complete -c tund -n "__fish_tund_needs_command" -s v -l verbose -d 'Say more; twice for even more'
complete -c tund -n "__fish_tund_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tund -n "__fish_tund_needs_command" -s V -l version -d 'Print version'
complete -c tund -n "__fish_tund_needs_command" -f -a "demo" -d 'Stack, driver and a client in one process: pings, UDP, and TCP through a real tun device'
complete -c tund -n "__fish_tund_needs_command" -f -a "completions" -d 'Print what a shell needs to complete command lines'
complete -c tund -n "__fish_tund_needs_command" -f -a "man" -d 'Write the manual pages into a directory'
complete -c tund -n "__fish_tund_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c tund -n "__fish_tund_using_subcommand demo" -l pings -d 'Echo requests to send' -r
complete -c tund -n "__fish_tund_using_subcommand demo" -l datagrams -d 'UDP datagrams to send, each with 1024 bytes' -r
complete -c tund -n "__fish_tund_using_subcommand demo" -l megabytes -d 'Megabytes to move over TCP, both ways together' -r
complete -c tund -n "__fish_tund_using_subcommand demo" -l capture -d 'Where to write the capture' -r -F
complete -c tund -n "__fish_tund_using_subcommand demo" -l mount -d 'Serve the tree at this directory, through FUSE, until interrupted (Linux, as root)' -r -F
complete -c tund -n "__fish_tund_using_subcommand demo" -l serve -d 'Run small services on TCP and UDP of every interface: echo, discard, chargen' -r
complete -c tund -n "__fish_tund_using_subcommand demo" -l adapter -d 'Drive this Ethernet interface of the host, as eth0; once more for eth1, and so on (with --mount)' -r
complete -c tund -n "__fish_tund_using_subcommand demo" -s v -l verbose -d 'Say more; twice for even more'
complete -c tund -n "__fish_tund_using_subcommand demo" -s h -l help -d 'Print help'
complete -c tund -n "__fish_tund_using_subcommand completions" -l mount -d 'Serve the tree at this directory, through FUSE, until interrupted (Linux, as root)' -r -F
complete -c tund -n "__fish_tund_using_subcommand completions" -l serve -d 'Run small services on TCP and UDP of every interface: echo, discard, chargen' -r
complete -c tund -n "__fish_tund_using_subcommand completions" -l adapter -d 'Drive this Ethernet interface of the host, as eth0; once more for eth1, and so on (with --mount)' -r
complete -c tund -n "__fish_tund_using_subcommand completions" -s v -l verbose -d 'Say more; twice for even more'
complete -c tund -n "__fish_tund_using_subcommand completions" -s h -l help -d 'Print help'
complete -c tund -n "__fish_tund_using_subcommand man" -l mount -d 'Serve the tree at this directory, through FUSE, until interrupted (Linux, as root)' -r -F
complete -c tund -n "__fish_tund_using_subcommand man" -l serve -d 'Run small services on TCP and UDP of every interface: echo, discard, chargen' -r
complete -c tund -n "__fish_tund_using_subcommand man" -l adapter -d 'Drive this Ethernet interface of the host, as eth0; once more for eth1, and so on (with --mount)' -r
complete -c tund -n "__fish_tund_using_subcommand man" -s v -l verbose -d 'Say more; twice for even more'
complete -c tund -n "__fish_tund_using_subcommand man" -s h -l help -d 'Print help'
complete -c tund -n "__fish_tund_using_subcommand help; and not __fish_seen_subcommand_from demo completions man help" -f -a "demo" -d 'Stack, driver and a client in one process: pings, UDP, and TCP through a real tun device'
complete -c tund -n "__fish_tund_using_subcommand help; and not __fish_seen_subcommand_from demo completions man help" -f -a "completions" -d 'Print what a shell needs to complete command lines'
complete -c tund -n "__fish_tund_using_subcommand help; and not __fish_seen_subcommand_from demo completions man help" -f -a "man" -d 'Write the manual pages into a directory'
complete -c tund -n "__fish_tund_using_subcommand help; and not __fish_seen_subcommand_from demo completions man help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'

