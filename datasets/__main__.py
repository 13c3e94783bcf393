from enas import main

main(package="datasets")
