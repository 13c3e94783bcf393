from enas import main

main(package="exporter")
