from enas import main

main(package="runtime")
