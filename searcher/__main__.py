from enas import main

main(package="searcher")
